#!/bin/bash
# Tests of tally. Usage: test.sh [NAME…]   (none: all of them)
cd "$(dirname "$0")" || exit 1
failed=0

check() { # NAME EXPECTED COMMAND…
    local name=$1 expected=$2 found
    shift 2
    found=$("$@" 2>&1)
    if [ "$found" = "$expected" ]; then
        echo "ok    $name"
    else
        echo "FAIL  $name"
        printf 'expected:\n%s\nfound:\n%s\n' "$expected" "$found"
        failed=1
    fi
}

test_total() {
    check "total adds everything up" "206.00" bash tally total expenses.txt
}

test_month() {
    check "month adds up by month, oldest first" $'2026-01 42.50\n2026-02 148.00\n2026-03 15.50' \
        bash tally month expenses.txt
}

test_top() {
    check "top 2 shows the two largest categories" $'travel 120.00\nbooks 45.50' bash tally top 2 expenses.txt
}

test_help() {
    check "help lists every command with its line" \
        $'help\nmonth FILE: the sum of each month, oldest first\ntop COUNT FILE: the COUNT categories with the largest sums\ntotal FILE: the sum of all amounts, with two decimals' \
        bash tally help
}

for name in "${@:-total month top help}"; do
    for one in $name; do "test_$one"; done
done
exit $failed
