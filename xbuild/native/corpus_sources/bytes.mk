# Bytes above 127: char has a sign on some machines.
words := z été a Ã© ÿ b €k ab b
$(info $(sort $(words)) $(filter-out é%,$(words)) $(words:ÿ=þ) $(subst é,e,$(words)) $(findstring ÿ,$(words)))
$(info $(words $(words)) $(lastword $(words)) $(patsubst %©,%y,$(words)) $(wordlist 2,5,$(words)))
été := named
all: ; @echo '$(été) $(sort $(.VARIABLES:é%=found))' | tr ' ' '\n' | grep -c found; echo '$(words)'
