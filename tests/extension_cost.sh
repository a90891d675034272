#!/usr/bin/env bash
# How many files outside of tests it took to extend the compiler, documents (*.md) left out: the table in
# src/ARCHITECTURE.md under "What a step costs to extend". A commit that adds an op, a router, a layer kind or
# the like says so by a line `Extension: NAME` at its end; this lists those commits, or those of the names given.
#
#   tests/extension_cost.sh             all extensions
#   tests/extension_cost.sh relu2 hash  these; fails if one of them has no commit
set -euo pipefail
cd "$(dirname "$0")/.."

# Extensions from before the line was asked for, by the subjects of their commits.
earlier=(
    "relu2:The activation relu2"
    "hash:A router that decides by the token's id"
    "linear:A layer kind: linear"
    "token_draw:A draw may be by ids alone"
)

# NAME COMMIT of every extension, oldest first.
extensions() {
    local entry
    for entry in "${earlier[@]}"; do
        git log --reverse --no-merges --format="${entry%%:*}%x09%H%x09%s" |
            awk -F'\t' -v subject="${entry#*:}" '$3 == subject && !seen++ { print $1, $2 }'
    done
    git log --reverse --format='%(trailers:key=Extension,valueonly,separator=%x2C) %H' |
        awk 'NF == 2 { n = split($1, names, ","); for (i = 1; i <= n; i++) print names[i], $2 }'
}

wanted=("$@")
if [[ ${#wanted[@]} -eq 0 ]]; then
    mapfile -t wanted < <(extensions | cut -d' ' -f1 | awk '!seen[$0]++')
fi
missing=0
for name in "${wanted[@]}"; do
    mapfile -t commits < <(extensions | awk -v name="$name" '$1 == name { print $2 }')
    if [[ ${#commits[@]} -eq 0 ]]; then
        printf '%s: no commit says that it adds it\n' "$name" >&2
        missing=1
        continue
    fi
    files=$(for commit in "${commits[@]}"; do git show --format= --name-only "$commit"; done | sort -u)
    outside=$(grep -vE '(^|/)tests(/|\.rs$)|\.md$' <<<"$files" || true)
    printf '%-12s %2d files outside of tests, %2d in all\n' \
        "$name" "$(grep -c . <<<"$outside" || true)" "$(grep -c . <<<"$files")"
    sed 's/^/    /' <<<"$outside"
done
exit "$missing"
