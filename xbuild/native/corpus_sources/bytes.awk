# Bytes above 127, as keys and in comparisons: what sorts and hashes by char depends on its sign.
BEGIN { for (i = 1; i < 256; i++) all[sprintf("%c", i) "k"] = i; for (key in all) printf "%d ", all[key]; print "" }
{ seen[$1]++; line[NR] = $0; print ($0 < "z"), ($1 ~ /[\200-\377]/), length($0), toupper($0), index($0, "t"), substr($0, 2, 1) }
END { for (key in seen) print key, seen[key]; n = split(line[4] line[5], part, ""); for (i = 1; i <= n; i++) printf "%s.", part[i]; print n }
