BEGIN { for (i = 1; i < 200; i++) printf "%.17g %.17g %.17g %.17g %.17g %.17g\n", sin(i * 0.37), cos(i * 1.7), exp(i * 0.11), log(i * 3.3), atan2(i, 7.1), (i * 1.01) ^ 3.7 }
