#!/bin/sh
# Brings the databases that the tests run on, where they are missing:  scripts/install_databases.sh
#
# PostgreSQL and MariaDB are Debian's or Ubuntu's packages, which root installs; no service is started. MySQL cannot be
# installed beside MariaDB, so its packages are unpacked into .databases/, with the libraries and the loader that they
# need: nothing of the machine changes. What cannot be had is said in one line; the tests decide what they insist on.
set -u
cd "$(dirname "$0")/.." || exit 1
python=$(sh scripts/pythons.sh default) || exit 1
missing=$("$python" -m tests.servers --missing) || exit 1
cache=$PWD/.databases
mkdir -p "$cache"

lacks() { echo "$missing" | grep -qx "$1"; }

# --- what root installs ---------------------------------------------------------------------------------------------

packages=
lacks postgres && packages="$packages postgresql"
lacks mariadb && packages="$packages mariadb-server"

install_packages() {
    rule=/usr/sbin/policy-rc.d
    if [ ! -e "$rule" ]; then
        trap 'rm -f "$rule"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$rule" && chmod +x "$rule"
    fi
    # shellcheck disable=SC2086
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages; } \
        >"$cache/install.log" 2>&1
}

if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "databases: missing:$packages. On Debian or Ubuntu:  sudo apt-get install$packages" >&2
    elif install_packages; then
        echo "databases: installed$packages"
    else
        echo "databases: could not install$packages: $(tail -n 1 "$cache/install.log") (.databases/install.log)" >&2
    fi
fi

# --- MySQL, unpacked ------------------------------------------------------------------------------------------------

work=$cache/unpack.$$

# Downloads a package and all that it depends on, as if nothing were installed, from the sources in $work/sources.list.
download() {
    mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/parts"
    : >"$work/state/status"
    cat >"$work/apt.conf" <<CONF
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/parts";
Dir::Etc::preferencesparts "$work/parts";
APT::Install-Recommends "false";
APT::Sandbox::User "";
CONF
    export APT_CONFIG="$work/apt.conf"
    apt-get update -qq && apt-get install -qq -y --download-only "$1"
    downloaded=$?
    unset APT_CONFIG
    return $downloaded
}

unpack() {
    for package in "$work"/cache/archives/*.deb; do
        dpkg -x "$package" "$work/root" || return 1
    done
    # Only the server, its messages and the libraries are of use.
    rm -rf "$work/root/usr/bin" "$work/root/etc" "$work/root/var"
    find "$work/root/usr/share" -mindepth 1 -maxdepth 1 ! -name 'mysql*' -exec rm -rf {} +
    find "$work/root/usr/lib" -maxdepth 2 -name 'perl*' -exec rm -rf {} +
    [ -x "$work/root/usr/sbin/mysqld" ]
}

# A line each: a source of packages on this machine, with its distribution and what it is.
sources() { apt-get indextargets --format '$(SITE) $(CODENAME) $(LABEL) $(SIGNED_BY)' 2>/dev/null | sort -u; }

# Ubuntu has MySQL; Debian has it in sid, from the same place and signed by the same keys as the rest.
get_mysql() {
    site=$(sources | awk '$3 == "Ubuntu" {print $1; exit}')
    if [ -n "$site" ]; then
        sources | awk '$3 == "Ubuntu" {print "deb", $1, $2, "main universe"}' >"$work/sources.list"
        download mysql-server-core-8.0 && unpack && return
        rm -rf "$work/cache"
    fi
    site=$(sources | awk '$3 == "Debian" {print $1; exit}')
    [ -n "$site" ] || { echo "no source of Debian's or Ubuntu's packages is set up on this machine"; return 1; }
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] $site sid main" >"$work/sources.list"
    download mysql-server-core && unpack
}

if lacks mysql && command -v apt-get >/dev/null 2>&1; then
    rm -f "$cache/mysql.missing"
    mkdir -p "$work"
    if get_mysql >"$cache/mysql.log" 2>&1 && mv "$work/root" "$cache/mysql" 2>>"$cache/mysql.log"; then
        echo "databases: unpacked MySQL into .databases/mysql"
    else
        echo "its packages could not be fetched ($(tail -n 1 "$cache/mysql.log"))" >"$cache/mysql.missing"
        echo "databases: MySQL: $(cat "$cache/mysql.missing"); MariaDB stands in for it" >&2
    fi
    rm -rf "$work"
fi

exec "$python" -m tests.servers
