# Addresses, hold space, branches, back-references.
1!G;h;$!d
s/\([a-z]*\) \([a-z]*\)/\2 \1/g
y/abc/ABC/
/zeta/{
N
s/\n/+/
}
:again
s/delta  */D/
t again
/^#define/s/[0-9][0-9]*/<&>/p
$a\
appended
s/[[:upper:]]\{2,\}/[&]/
l 40
