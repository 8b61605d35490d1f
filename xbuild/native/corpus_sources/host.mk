all: ; @echo $(MAKE_HOST)
