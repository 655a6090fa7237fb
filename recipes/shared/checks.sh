# Checks of a recipe's variables, before anything is made: value, rule, remedy in one sentence each. Sourced by the recipes.

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Ray workers have working directories of their own, so files are named by absolute paths.
absolute() { case $1 in /* | *://*) printf '%s' "$1" ;; '~/'*) printf '%s/%s' "$HOME" "${1#'~/'}" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac; }

# quote_paths: the paths in ARGUMENTS (key=value), in quotes where Hydra's grammar would read something else
quote_paths() {
    local i key value
    for i in "${!ARGUMENTS[@]}"; do
        key=${ARGUMENTS[i]%%=*} value=${ARGUMENTS[i]#*=}
        case $key in *_files | *.path | *_dir | *_PATH | *_DIR | *.generation_config | *.experiment_name) ;; *) continue ;; esac
        case $value in *'${'* | *\\* | *$'\n'*) die "$key is '$value', but Hydra reads no path with \${, a backslash or a line break; use another folder" ;; esac
        case $key:$value in *_files:*[*?]* | *_files:*\[*\]* | *_files:*::*) die "$key is '$value', but verl reads *, ?, [...] and :: in it as a pattern of other files; use another folder" ;; esac
        [[ $value =~ ^[A-Za-z0-9_./:@%+-]*$ ]] || ARGUMENTS[i]=$key="'${value//\'/\\\'}'"
    done
}

# every fault is told, then end_checks ends the recipe; UNSOUND: there are whole numbers that cannot be computed with
FAULTS=0 UNSOUND=0
fault() { printf 'error: %s\n' "$*" >&2; FAULTS=$((FAULTS + 1)); }
end_checks() { [ "$FAULTS" = 0 ] || exit 1; }

# check_whole MINIMUM NAME...
check_whole() {
    local minimum=$1 name
    shift
    for name in "$@"; do
        [[ ${!name} =~ ^(0|[1-9][0-9]{0,11})$ ]] && [ "${!name}" -ge "$minimum" ] ||
            { UNSOUND=1 && fault "$name is '${!name}', but it must be a whole number of at least $minimum"; }
    done
}

# check_number RULE EXAMPLE NAME...: RULE is an awk condition on x, e.g. 'x > 0'
check_number() {
    local rule=$1 example=$2 name said
    said=${rule//&&/and}
    shift 2
    for name in "$@"; do
        [[ ${!name} =~ ^((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,2})?$ ]] && awk -v x="${!name}" "BEGIN { x += 0; exit !($rule) }" ||
            fault "$name is '${!name}', but it must be a number with ${said//x/$name}, e.g. $example"
    done
}

# check_choice NAME CHOICE...
check_choice() {
    local name=$1 choice choices
    shift
    for choice in "$@"; do [ "${!name}" != "$choice" ] || return 0; done
    choices=$(printf ', %s' "${@:1:$#-1}")
    fault "$name is '${!name}', but it must be ${choices:2} or ${!#}"
}

# check_list NAME...: words between blanks, none twice (two trainings in one folder); single blanks are left
check_list() {
    local name words
    for name in "$@"; do
        read -rd '' -a words <<<"${!name}" || true
        printf -v "$name" %s "${words[*]-}"
        [ "${#words[@]}" = 0 ] || [ -z "$(printf '%s\n' "${words[@]}" | sort | uniq -d)" ] ||
            fault "$name is '${!name}', but it must name each of them once"
    done
}

# check_switch NAME...: 1, yes, true, on become 1; 0, no, false, off become 0
check_switch() {
    local name
    for name in "$@"; do
        case $(tr '[:upper:]' '[:lower:]' <<<"${!name}") in
            1 | yes | true | on) printf -v "$name" 1 ;;
            0 | no | false | off) printf -v "$name" 0 ;;
            *) fault "$name is '${!name}', but it must be 1 (yes, true) or 0 (no, false)" ;;
        esac
    done
}

# True or False of a checked switch, as verl's configuration writes it
python_bool() { if [ "$1" = 1 ]; then printf True; else printf False; fi; }

variables_of() { grep -ohE '\$\{[A-Z][A-Z0-9_]*:-' "$@" | tr -d '${:-' | sort -u; }

# check_names FILE...: an exported variable whose name is nearly one of those that the files let the user set is an
# error, for the run that it was meant for would be another. IGNORE_VARIABLES="NAME ..." lets some pass. A variable of
# another recipe may be exported for that one, and is only pointed out.
check_names() {
    local known elsewhere near name wanted
    known=$(variables_of "$@")
    for name in DRY_RUN PREFLIGHT_ONLY PRINT_ARGUMENTS SMOKE; do # what would start although the user asked for less
        [[ " ${IGNORE_VARIABLES:-} " == *" $name "* ]] || grep -qx "$name" <<<"$known" || case ${!name:-0} in
            0 | no | false | off) ;;
            *) fault "$name is '${!name}', but this recipe has no such switch and would run as a whole; unset it" ;;
        esac
    done
    elsewhere=$(variables_of "$(dirname "${BASH_SOURCE[0]}")"/../run_*.sh "$(dirname "${BASH_SOURCE[0]}")"/*.sh)
    near=$(compgen -e | awk -v known="$known" -v ignored="${IGNORE_VARIABLES:-}" '
        function plain(name) { gsub(/[-_]/, "", name); return toupper(name) }
        function least(a, b) { return a < b ? a : b }
        # edit distance with swapped neighbours; for short names a replaced letter makes another word (DATA, DATE): 2
        function distance(a, b, swap,   i, j, d) {
            for (i = 0; i <= length(a); i++) d[i, 0] = i
            for (j = 0; j <= length(b); j++) d[0, j] = j
            for (i = 1; i <= length(a); i++)
                for (j = 1; j <= length(b); j++) {
                    d[i, j] = least(least(d[i-1, j], d[i, j-1]) + 1, d[i-1, j-1] + (substr(a, i, 1) == substr(b, j, 1) ? 0 : swap))
                    if (i > 1 && j > 1 && substr(a, i, 1) == substr(b, j-1, 1) && substr(a, i-1, 1) == substr(b, j, 1))
                        d[i, j] = least(d[i, j], d[i-2, j-2] + 1)
                }
            return d[length(a), length(b)]
        }
        BEGIN { n = split(known, names, "\n"); split(ignored, words, " "); for (i in words) skip[words[i]]; for (i = 1; i <= n; i++) skip[names[i]] }
        BEGIN { split("GAMMA FOCAL_GAMMA LR LEARNING_RATE STEPS TOTAL_STEPS GPUS GPUS_PER_NODE BATCHSIZE TRAIN_BATCH_SIZE", words, " "); for (i = 1; i in words; i += 2) other[words[i]] = words[i + 1] }
        !($0 in skip) {
            if (other[plain($0)] in skip) { print $0, other[plain($0)]; next }
            for (i = 1; i <= n; i++) {
                size = length(plain(names[i]))
                if (distance(plain($0), plain(names[i]), size < 6 ? 2 : 1) <= (size < 8 ? 1 : 2)) { print $0, names[i]; next }
            }
        }')
    [ -z "$near" ] || while read -r name wanted; do
        if grep -qx "$name" <<<"$elsewhere"; then
            printf 'note: %s is set, a variable of another recipe; did you mean %s?\n' "$name" "$wanted" >&2
        else
            fault "$name is no variable of this recipe; did you mean $wanted? Unset it, or set IGNORE_VARIABLES='$name' if it belongs to something else"
        fi
    done <<<"$near"
}
