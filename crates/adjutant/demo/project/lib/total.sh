# tally total FILE: the sum of all amounts, with two decimals
awk '{ sum += $3 } END { printf "%.2f\n", sum }' "$1"
