# Fields, arrays, regular expressions, functions and numbers.
function scale(x, by) { return x * by }
BEGIN { FS = "[ \t,;]+"; OFS = "|"; printf "%d %5.2f %s %c %x %e %g\n", 42.9, 3.14159, "text", 65, 255, 12345.678, 1e-5 }
/alpha/ { seen[$1 FS $2]++ }
{ $1 = toupper($1); total += NF; print NR, NF, $1, length($0), substr($0, 3, 5), index($0, "e") }
$3 + 0 > 3 { sum += scale($3, 1.1) }
{ line = $0; gsub(/[aeiou]/, "<&>", line); n = split(line, parts, "<"); print n, parts[1], match(line, /l+/), RSTART, RLENGTH }
END { for (k in seen) print k, seen[k]; print total, sum, 2 ^ 0.5, int(-3.7), 7 % 3, 1e20, 0.1 + 0.2, 100000 * 100000, sprintf("%.17g", sum) }
