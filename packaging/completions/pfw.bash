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
        'monitor --rules' | 'monitor --interface' | 'monitor -i' | 'monitor --read' | 'monitor -r' | 'monitor --local' | 'monitor --filter' | 'monitor -f' | 'monitor --count' | 'monitor -c' | 'monitor --seconds' | 'monitor --backend' | 'monitor --confirm' | 'monitor --log' | 'monitor --eve' | 'monitor --log-budget' | 'check --rules' | 'test --rules' | 'explain --app' | 'explain --sha256' | 'explain --script' | 'explain --user' | 'explain --unit' | 'explain --interface' | 'explain --time' | 'explain --rules' | 'replay --local' | 'replay --filter' | 'replay -f' | 'replay --top' | 'replay --rules' | 'convert --rules' | 'import --output' | 'import -o' | 'import --default' | 'up --rules' | 'up --backend' | 'up --confirm' | 'show --rules' | 'show --backend' | 'allow --from' | 'allow --to' | 'allow --remote' | 'allow --protocol' | 'allow --port' | 'allow --from-port' | 'allow --icmp-type' | 'allow --interface' | 'allow --user' | 'allow --unit' | 'allow --app' | 'allow --script' | 'allow --limit' | 'allow --schedule' | 'allow --for' | 'allow --until' | 'allow --note' | 'allow --name' | 'allow --burst' | 'allow --before' | 'allow --rules' | 'block --from' | 'block --to' | 'block --remote' | 'block --protocol' | 'block --port' | 'block --from-port' | 'block --icmp-type' | 'block --interface' | 'block --user' | 'block --unit' | 'block --app' | 'block --script' | 'block --limit' | 'block --schedule' | 'block --for' | 'block --until' | 'block --note' | 'block --name' | 'block --burst' | 'block --before' | 'block --rules' | 'reject --from' | 'reject --to' | 'reject --remote' | 'reject --protocol' | 'reject --port' | 'reject --from-port' | 'reject --icmp-type' | 'reject --interface' | 'reject --user' | 'reject --unit' | 'reject --app' | 'reject --script' | 'reject --limit' | 'reject --schedule' | 'reject --for' | 'reject --until' | 'reject --note' | 'reject --name' | 'reject --burst' | 'reject --before' | 'reject --rules' | 'delete --rules' | 'undo --rules' | 'ban --for' | 'ban --why' | 'lists --rules' | 'panic --backend' | 'install --units' | 'uninstall --units' | 'daemon --rules' | 'daemon --cgroup' | 'daemon --mask' | 'daemon --log' | 'daemon --eve' | 'daemon --log-budget' | 'ask --for' | 'ask --scope' | 'connections --app' | 'connections --pid' | 'connections --user' | 'connections --direction' | 'connections --protocol' | 'connections --remote' | 'connections --port' | 'connections --rule' | 'log --since' | 'log --until' | 'log --app' | 'log --remote' | 'log --port' | 'log --protocol' | 'log --user' | 'log --rule' | 'log --number' | 'log -n' | 'stats --by' | 'stats --number' | 'stats -n' | 'stats --since' | 'stats --until' | 'stats --app' | 'stats --remote' | 'stats --port' | 'stats --protocol' | 'stats --user' | 'stats --rule' | 'stats --geoip' | 'first-seen --since' | 'rehearse --rules' | 'rehearse --since' | 'rehearse --app' | 'rehearse --remote' | 'suggest --rules' | 'suggest --since' | 'suggest --app' | 'suggest --output') skip=1 ;;
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
    'monitor --backend') _pfw_values 'words auto nftables iptables iptables-nft iptables-legacy' "$current"; return ;;
    'monitor --confirm') _pfw_values 'text' "$current"; return ;;
    'monitor --log') _pfw_values 'file' "$current"; return ;;
    'monitor --eve') _pfw_values 'file' "$current"; return ;;
    'monitor --log-budget') _pfw_values 'text' "$current"; return ;;
    'check --rules') _pfw_values 'file' "$current"; return ;;
    'test --rules') _pfw_values 'file' "$current"; return ;;
    'explain --app') _pfw_values 'file' "$current"; return ;;
    'explain --sha256') _pfw_values 'text' "$current"; return ;;
    'explain --script') _pfw_values 'file' "$current"; return ;;
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
    'import --output' | 'import -o') _pfw_values 'file' "$current"; return ;;
    'import --default') _pfw_values 'words ask allow deny reject' "$current"; return ;;
    'up --rules') _pfw_values 'file' "$current"; return ;;
    'up --backend') _pfw_values 'words auto nftables iptables iptables-nft iptables-legacy' "$current"; return ;;
    'up --confirm') _pfw_values 'text' "$current"; return ;;
    'show --rules') _pfw_values 'file' "$current"; return ;;
    'show --backend') _pfw_values 'words auto nftables iptables iptables-nft iptables-legacy' "$current"; return ;;
    'allow --from') _pfw_values 'text' "$current"; return ;;
    'allow --to') _pfw_values 'text' "$current"; return ;;
    'allow --remote') _pfw_values 'text' "$current"; return ;;
    'allow --protocol') _pfw_values 'text' "$current"; return ;;
    'allow --port') _pfw_values 'text' "$current"; return ;;
    'allow --from-port') _pfw_values 'text' "$current"; return ;;
    'allow --icmp-type') _pfw_values 'text' "$current"; return ;;
    'allow --interface') _pfw_values 'interface' "$current"; return ;;
    'allow --user') _pfw_values 'user' "$current"; return ;;
    'allow --unit') _pfw_values 'text' "$current"; return ;;
    'allow --app') _pfw_values 'file' "$current"; return ;;
    'allow --script') _pfw_values 'file' "$current"; return ;;
    'allow --limit') _pfw_values 'text' "$current"; return ;;
    'allow --schedule') _pfw_values 'text' "$current"; return ;;
    'allow --for') _pfw_values 'text' "$current"; return ;;
    'allow --until') _pfw_values 'text' "$current"; return ;;
    'allow --note') _pfw_values 'text' "$current"; return ;;
    'allow --name') _pfw_values 'text' "$current"; return ;;
    'allow --burst') _pfw_values 'text' "$current"; return ;;
    'allow --before') _pfw_values 'text' "$current"; return ;;
    'allow --rules') _pfw_values 'file' "$current"; return ;;
    'block --from') _pfw_values 'text' "$current"; return ;;
    'block --to') _pfw_values 'text' "$current"; return ;;
    'block --remote') _pfw_values 'text' "$current"; return ;;
    'block --protocol') _pfw_values 'text' "$current"; return ;;
    'block --port') _pfw_values 'text' "$current"; return ;;
    'block --from-port') _pfw_values 'text' "$current"; return ;;
    'block --icmp-type') _pfw_values 'text' "$current"; return ;;
    'block --interface') _pfw_values 'interface' "$current"; return ;;
    'block --user') _pfw_values 'user' "$current"; return ;;
    'block --unit') _pfw_values 'text' "$current"; return ;;
    'block --app') _pfw_values 'file' "$current"; return ;;
    'block --script') _pfw_values 'file' "$current"; return ;;
    'block --limit') _pfw_values 'text' "$current"; return ;;
    'block --schedule') _pfw_values 'text' "$current"; return ;;
    'block --for') _pfw_values 'text' "$current"; return ;;
    'block --until') _pfw_values 'text' "$current"; return ;;
    'block --note') _pfw_values 'text' "$current"; return ;;
    'block --name') _pfw_values 'text' "$current"; return ;;
    'block --burst') _pfw_values 'text' "$current"; return ;;
    'block --before') _pfw_values 'text' "$current"; return ;;
    'block --rules') _pfw_values 'file' "$current"; return ;;
    'reject --from') _pfw_values 'text' "$current"; return ;;
    'reject --to') _pfw_values 'text' "$current"; return ;;
    'reject --remote') _pfw_values 'text' "$current"; return ;;
    'reject --protocol') _pfw_values 'text' "$current"; return ;;
    'reject --port') _pfw_values 'text' "$current"; return ;;
    'reject --from-port') _pfw_values 'text' "$current"; return ;;
    'reject --icmp-type') _pfw_values 'text' "$current"; return ;;
    'reject --interface') _pfw_values 'interface' "$current"; return ;;
    'reject --user') _pfw_values 'user' "$current"; return ;;
    'reject --unit') _pfw_values 'text' "$current"; return ;;
    'reject --app') _pfw_values 'file' "$current"; return ;;
    'reject --script') _pfw_values 'file' "$current"; return ;;
    'reject --limit') _pfw_values 'text' "$current"; return ;;
    'reject --schedule') _pfw_values 'text' "$current"; return ;;
    'reject --for') _pfw_values 'text' "$current"; return ;;
    'reject --until') _pfw_values 'text' "$current"; return ;;
    'reject --note') _pfw_values 'text' "$current"; return ;;
    'reject --name') _pfw_values 'text' "$current"; return ;;
    'reject --burst') _pfw_values 'text' "$current"; return ;;
    'reject --before') _pfw_values 'text' "$current"; return ;;
    'reject --rules') _pfw_values 'file' "$current"; return ;;
    'delete --rules') _pfw_values 'file' "$current"; return ;;
    'undo --rules') _pfw_values 'file' "$current"; return ;;
    'ban --for') _pfw_values 'text' "$current"; return ;;
    'ban --why') _pfw_values 'text' "$current"; return ;;
    'lists --rules') _pfw_values 'file' "$current"; return ;;
    'panic --backend') _pfw_values 'words auto nftables iptables iptables-nft iptables-legacy' "$current"; return ;;
    'install --units') _pfw_values 'text' "$current"; return ;;
    'uninstall --units') _pfw_values 'text' "$current"; return ;;
    'daemon --rules') _pfw_values 'file' "$current"; return ;;
    'daemon --cgroup') _pfw_values 'file' "$current"; return ;;
    'daemon --mask') _pfw_values 'text' "$current"; return ;;
    'daemon --log') _pfw_values 'file' "$current"; return ;;
    'daemon --eve') _pfw_values 'file' "$current"; return ;;
    'daemon --log-budget') _pfw_values 'text' "$current"; return ;;
    'ask --for') _pfw_values 'text' "$current"; return ;;
    'ask --scope') _pfw_values 'words exact address port anywhere' "$current"; return ;;
    'connections --app') _pfw_values 'file' "$current"; return ;;
    'connections --pid') _pfw_values 'text' "$current"; return ;;
    'connections --user') _pfw_values 'user' "$current"; return ;;
    'connections --direction') _pfw_values 'words in out' "$current"; return ;;
    'connections --protocol') _pfw_values 'text' "$current"; return ;;
    'connections --remote') _pfw_values 'text' "$current"; return ;;
    'connections --port') _pfw_values 'text' "$current"; return ;;
    'connections --rule') _pfw_values 'text' "$current"; return ;;
    'log --since') _pfw_values 'text' "$current"; return ;;
    'log --until') _pfw_values 'text' "$current"; return ;;
    'log --app') _pfw_values 'file' "$current"; return ;;
    'log --remote') _pfw_values 'text' "$current"; return ;;
    'log --port') _pfw_values 'text' "$current"; return ;;
    'log --protocol') _pfw_values 'text' "$current"; return ;;
    'log --user') _pfw_values 'user' "$current"; return ;;
    'log --rule') _pfw_values 'text' "$current"; return ;;
    'log --number' | 'log -n') _pfw_values 'text' "$current"; return ;;
    'stats --by') _pfw_values 'words program remote name country rule hour port user' "$current"; return ;;
    'stats --number' | 'stats -n') _pfw_values 'text' "$current"; return ;;
    'stats --since') _pfw_values 'text' "$current"; return ;;
    'stats --until') _pfw_values 'text' "$current"; return ;;
    'stats --app') _pfw_values 'file' "$current"; return ;;
    'stats --remote') _pfw_values 'text' "$current"; return ;;
    'stats --port') _pfw_values 'text' "$current"; return ;;
    'stats --protocol') _pfw_values 'text' "$current"; return ;;
    'stats --user') _pfw_values 'user' "$current"; return ;;
    'stats --rule') _pfw_values 'text' "$current"; return ;;
    'stats --geoip') _pfw_values 'file' "$current"; return ;;
    'first-seen --since') _pfw_values 'text' "$current"; return ;;
    'rehearse --rules') _pfw_values 'file' "$current"; return ;;
    'rehearse --since') _pfw_values 'text' "$current"; return ;;
    'rehearse --app') _pfw_values 'file' "$current"; return ;;
    'rehearse --remote') _pfw_values 'text' "$current"; return ;;
    'suggest --rules') _pfw_values 'file' "$current"; return ;;
    'suggest --since') _pfw_values 'text' "$current"; return ;;
    'suggest --app') _pfw_values 'file' "$current"; return ;;
    'suggest --output') _pfw_values 'file' "$current"; return ;;
    esac
    case $command in
    '')
        options='-h --help --version'
        if ((operands == 0)); then kind='words monitor check test explain replay schema convert import up confirm down status show allow block reject delete undo history ban lists panic doctor install uninstall daemon ask apps connections why agent log stats first-seen rehearse suggest completion'; fi
        ;;
    'monitor')
        options='-h --help --rules --interface -i --read -r --local --filter -f --count -c --seconds --every-packet --verbose -v --enforce --backend --confirm --force --quiet -q --json --log --no-log --eve --syslog --journal --log-budget'
        ;;
    'check')
        options='-h --help --rules --json'
        if ((operands == 0)); then kind='file'; fi
        ;;
    'test')
        options='-h --help --rules --json'
        if ((operands == 0)); then kind='file'; fi
        ;;
    'explain')
        options='-h --help --app --sha256 --script --user --unit --interface --time --rules --json'
        if ((operands >= 0)); then kind='text'; fi
        ;;
    'replay')
        options='-h --help --detect --local --filter -f --top --rules --json'
        if ((operands >= 0)); then kind='file'; fi
        ;;
    'schema')
        options='-h --help --json'
        ;;
    'convert')
        options='-h --help --rules --json'
        if ((operands == 0)); then kind='file'; fi
        ;;
    'import')
        options='-h --help --output -o --default --leave-out-denies --json'
        if ((operands == 0)); then kind='words opensnitch'; fi
        if ((operands == 1)); then kind='text'; fi
        ;;
    'up')
        options='-h --help --rules --backend --confirm --rehearse --yes -y --dry-run --force --json'
        ;;
    'confirm')
        options='-h --help --json'
        ;;
    'down')
        options='-h --help --json'
        ;;
    'status')
        options='-h --help --json'
        ;;
    'show')
        options='-h --help --rules --backend --json'
        ;;
    'allow')
        options='-h --help --from --to --remote --protocol --port --from-port --icmp-type --interface --user --unit --app --script --limit --schedule --for --until --note --name --burst --log --first --last --before --force --rules --json'
        if ((operands >= 0)); then kind='text'; fi
        ;;
    'block')
        options='-h --help --from --to --remote --protocol --port --from-port --icmp-type --interface --user --unit --app --script --limit --schedule --for --until --note --name --burst --log --first --last --before --force --rules --json'
        if ((operands >= 0)); then kind='text'; fi
        ;;
    'reject')
        options='-h --help --from --to --remote --protocol --port --from-port --icmp-type --interface --user --unit --app --script --limit --schedule --for --until --note --name --burst --log --first --last --before --force --rules --json'
        if ((operands >= 0)); then kind='text'; fi
        ;;
    'delete')
        options='-h --help --rules --force --json'
        if ((operands == 0)); then kind='text'; fi
        ;;
    'undo')
        options='-h --help --rules --force --json'
        ;;
    'history')
        options='-h --help --json'
        ;;
    'ban')
        options='-h --help --for --why --force --json'
        if ((operands == 0)); then kind='words add remove list show reload'; fi
        if ((operands >= 1)); then kind='text'; fi
        ;;
    'lists')
        options='-h --help --due --accept-shrunken --rules --json'
        if ((operands == 0)); then kind='words show update why'; fi
        if ((operands >= 1)); then kind='text'; fi
        ;;
    'panic')
        options='-h --help --off --backend --json'
        ;;
    'doctor')
        options='-h --help --json'
        ;;
    'install')
        options='-h --help --units --json'
        ;;
    'uninstall')
        options='-h --help --units --json'
        ;;
    'daemon')
        options='-h --help --rules --cgroup --mask --no-labels --log --no-log --eve --syslog --journal --log-budget'
        ;;
    'ask')
        options='-h --help --list --for --once --program --always --scope --json'
        if ((operands == 0)); then kind='words answer'; fi
        if ((operands >= 1)); then kind='text'; fi
        ;;
    'apps')
        options='-h --help --json'
        ;;
    'connections')
        options='-h --help --watch -w --app --pid --user --direction --protocol --remote --port --rule --json'
        ;;
    'why')
        options='-h --help --json'
        if ((operands == 0)); then kind='text'; fi
        ;;
    'agent')
        options='-h --help'
        ;;
    'log')
        options='-h --help --follow -f --since --until --app --remote --port --protocol --in --out --forward --user --blocked --allowed --rule --alerts --number -n --json --csv'
        ;;
    'stats')
        options='-h --help --by --number -n --since --until --app --remote --port --protocol --in --out --forward --user --blocked --allowed --rule --geoip --json'
        ;;
    'first-seen')
        options='-h --help --since --json'
        if ((operands >= 0)); then kind='text'; fi
        ;;
    'rehearse')
        options='-h --help --rules --since --app --remote --json'
        if ((operands == 0)); then kind='file'; fi
        ;;
    'suggest')
        options='-h --help --rules --since --app --output --json'
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
