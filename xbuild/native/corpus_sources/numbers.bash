# Floating point in bash's printf: the only place where it has any. It is long double there.
values="0 -0 1 -1 0.1 .5 2.5 1e10 123456789012345678901234567890 3.14159265358979323846264338327950288419716939937510
0.1000000000000000000001 18446744073709551615 18446744073709551617 9223372036854775807.5 1e22 1e23 5e-324 2.2250738585072011e-308
1.7976931348623159e308 1e400 1e-400 3.3621031431120935e-4932 1e-4940 1e-4950 1e-4960 6.4e-4966 1e-4970 1.189731495357231765e4932 1e5000
0x1p-16383 0x1.8p3 0x1.ffffffffffffffffffffffffffffp0 0x1.fffffffffffffffffffffffffffff8p0 nan -nan nan(1) inf -inf INFINITY"
formats="%f %e %g %a %F %E %G %A %.0f %.0e %.0g %.0a %#.0f %#.0a %#g %+f %+a %.40f %.30g %.3a %.60a %.17g"
for value in $values; do
    for format in $formats; do
        printf "$value $format: $format\n" "$value"
    done
done
for value in 1 -2.5 1e-4960 0x1.8p3 nan inf 1234567.891; do
    for format in '% f' '% a' %020.3f %-20.3f %-020.3a %020a %+020.5a %30.5a %+#30A "%'f" "%'020.2f" %.300e %Lf %lf '%+ 012.4Lg' %-12g %12G '%#- 30a'; do
        printf "[$format] <$format>\n" "$value"
        printf -v made "$format" "$value"; echo "$made ${#made}"
    done
done
printf '%f %g %a\n'; printf '%a %a %f\n' "'A" '"z' "'é"; printf '%f %f %d\n' 1e-4960
printf '%*.*f|%-*g|%.*a|%*s\n' 10 2 3.14159 12 1 5 0.3 7 x; printf '%*.*e|\n' -15 -1 2.5
printf '%f,' 1 2 3; printf '%s %.2f %d\n' a 1.005 1 b 2.675 2 c
for wrong in abc 12x '' 1,5 '1 ' ' 1' 0x 1e 1e+ --1 .; do printf '%f %g\n' "$wrong" "$wrong"; echo "status $?"; done
printf '%n%y %f\n' x 1; printf '%.2f %5c %q %b\n' 1e3 x 'a b' 'c\n'; printf -v 'list[3]' %.3e 42; declare -p list
printf '%.3000f' 1e-3 | tail -c 20; printf '%5000.2f' 1 | head -c 10; echo
(set -o posix; printf '%.30f %a\n' 0.1 0.1; printf '%.30Lf\n' 0.1; printf '%Lf %f\n' 1e400 1e400)
printf '%d %i %u %o %x %X %#x %#o %+d % d %05d %-5d| %.3d\n' {1..13}; printf '%d\n' 0x7fffffffffffffff 9223372036854775808 -9223372036854775809 010 "'a" 1.5
TZ=UTC0 printf '%(%F %T %j %U %s %a %e)T|%(%Y)T|%()T\n' 1700000000 86399 0; TZ=EST5EDT,M3.2.0,M11.1.0 printf '%(%c %Z %z)T\n' 1720000000 1705000000 -1 | head -c 24
