"""User names that are reserved for system accounts of images."""

from proxy.model import ALLOWED, Decision

_SYSTEM_NAMES = frozenset(
    word
    # The accounts that Debian, Ubuntu, Fedora and Alpine have or make, and those of common services.
    for line in (
        "root toor daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats",
        "nobody adm operator shutdown halt ftp ftpuser at cron squid xfs ntp smmsp guest postmaster cyrus",
        "vpopmail svn messagebus dbus polkitd sshd avahi rpc rpcuser nfsnobody tss uuidd tcpdump syslog",
        "rtkit colord geoclue pulse gdm lightdm dnsmasq named bind chrony nslcd sssd saslauth dhcpcd",
        "systemd nonroot apache httpd nginx caddy haproxy tomcat postgres mysql mariadb redis mongodb",
        "rabbitmq memcached elasticsearch kibana grafana prometheus zookeeper kafka cassandra etcd",
        "containerd dockerd fairlead shelld",
    )
    for word in line.split()
)
_SYSTEM_PREFIXES = ("_", "systemd-", "systemd_", "debian-")


def may_be_account(name: str) -> Decision:
    """Decide whether a user's name may become an OS account of an image, where `root` has every right.

    Names of system accounts may not: the image may have such an account, with groups and files.
    """
    if name in _SYSTEM_NAMES or name.startswith(_SYSTEM_PREFIXES):
        return Decision(f"the user name {name} is reserved: it is a system account's")
    return ALLOWED
