# bash completion for pfw: made by tools/make_man.py from the parser of the command line; do not edit

_pfw_values() {
    case $1 in
    file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$2") ;;
    user) mapfile -t COMPREPLY < <(compgen -u -- "$2") ;;
    interface)
        local interfaces=(/sys/class/net/*)
        mapfile -t COMPREPLY < <(compgen -W "${interfaces[*]##*/}" -- "$2")
        ;;
    words*) mapfile -t COMPREPLY < <(compgen -W "${1#words }" -- "$2") ;;
    esac
}

_pfw() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' operands=0 skip=0 options='' kind='' word
    COMPREPLY=()
    if [[ $current == '=' ]]; then
        current=''
    elif [[ $previous == '=' ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    for word in "${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do
        if [[ $word == '=' ]]; then skip=1; continue; fi
        if ((skip)); then skip=0; continue; fi
        case "$command $word" in
        'monitor --rules' | 'monitor --interface' | 'monitor -i' | 'monitor --read' | 'monitor -r' | 'monitor --local' | 'monitor --filter' | 'monitor -f' | 'monitor --count' | 'monitor -c' | 'monitor --seconds' | 'monitor --log' | 'monitor --eve' | 'monitor --log-budget' | 'check --rules' | 'explain --app' | 'explain --user' | 'explain --unit' | 'explain --interface' | 'explain --time' | 'explain --rules' | 'replay --local' | 'replay --filter' | 'replay -f' | 'replay --top' | 'replay --rules' | 'convert --rules') skip=1 ;;
        *' -'*) ;;
        ' '*) command=$word ;;
        *) ((operands += 1)) ;;
        esac
    done
    case "$command $previous" in
    'monitor --rules') _pfw_values 'file' "$current"; return ;;
    'monitor --interface' | 'monitor -i') _pfw_values 'interface' "$current"; return ;;
    'monitor --read' | 'monitor -r') _pfw_values 'file' "$current"; return ;;
    'monitor --local') _pfw_values 'text' "$current"; return ;;
    'monitor --filter' | 'monitor -f') _pfw_values 'text' "$current"; return ;;
    'monitor --count' | 'monitor -c') _pfw_values 'text' "$current"; return ;;
    'monitor --seconds') _pfw_values 'text' "$current"; return ;;
    'monitor --log') _pfw_values 'file' "$current"; return ;;
    'monitor --eve') _pfw_values 'file' "$current"; return ;;
    'monitor --log-budget') _pfw_values 'text' "$current"; return ;;
    'check --rules') _pfw_values 'file' "$current"; return ;;
    'explain --app') _pfw_values 'file' "$current"; return ;;
    'explain --user') _pfw_values 'user' "$current"; return ;;
    'explain --unit') _pfw_values 'text' "$current"; return ;;
    'explain --interface') _pfw_values 'interface' "$current"; return ;;
    'explain --time') _pfw_values 'text' "$current"; return ;;
    'explain --rules') _pfw_values 'file' "$current"; return ;;
    'replay --local') _pfw_values 'text' "$current"; return ;;
    'replay --filter' | 'replay -f') _pfw_values 'text' "$current"; return ;;
    'replay --top') _pfw_values 'text' "$current"; return ;;
    'replay --rules') _pfw_values 'file' "$current"; return ;;
    'convert --rules') _pfw_values 'file' "$current"; return ;;
    esac
    case $command in
    '')
        options='-h --help --version'
        if ((operands == 0)); then kind='words monitor check explain replay schema convert completion'; fi
        ;;
    'monitor')
        options='-h --help --rules --interface -i --read -r --local --filter -f --count -c --seconds --every-packet --verbose -v --quiet -q --json --log --no-log --eve --syslog --journal --log-budget'
        ;;
    'check')
        options='-h --help --rules --json'
        if ((operands == 0)); then kind='file'; fi
        ;;
    'explain')
        options='-h --help --app --user --unit --interface --time --rules --json'
        if ((operands >= 0)); then kind='text'; fi
        ;;
    'replay')
        options='-h --help --local --filter -f --top --rules --json'
        if ((operands >= 0)); then kind='file'; fi
        ;;
    'schema')
        options='-h --help --json'
        ;;
    'convert')
        options='-h --help --rules --json'
        if ((operands == 0)); then kind='file'; fi
        ;;
    'completion')
        options='-h --help'
        if ((operands == 0)); then kind='words bash zsh fish'; fi
        ;;
    esac
    if [[ $current == -* ]]; then kind="words $options"; fi
    _pfw_values "$kind" "$current"
}

complete -F _pfw pfw
