# What makefiles of real projects use.
.PHONY: all clean
OBJECTS := $(patsubst %.c,%.o,$(sort $(wildcard s*.c t*.c)))
define rule
$(1)-made: $(2)
	@echo making $$@ from $$^ '$$(notdir $$<)'
endef
$(eval $(call rule,first,words.txt))
export EXPORTED = yes
all: first-made second $(OBJECTS:.o=.name)
	@echo $(words $(OBJECTS)) $(firstword $(OBJECTS)) $(filter-out s%,$(OBJECTS)) $(subst a,A,banana)
	@echo $(foreach x,1 2 3,[$(x)]) $(if $(EXPORTED),true,false) $(abspath /a/../b) $(dir c/d.e) $(suffix c/d.e)
	@echo $(shell echo from shell; exit 0) $(join a b,.c .d) $(lastword x y) $(wordlist 2,3,p q r s) $${EXPORTED}
	@echo $(MAKE_VERSION) $(origin CC) $(flavor OBJECTS) $(value rule) | head -n 1
	-@false
	@echo after
second: ; @echo $@; printf '%s\n' "$$PWD" | wc -l
%.name: %.c
	@echo $* $(@F) $(<D)
