"""Gives the tests real database servers: private ones that may be killed, and one of each kind that all tests share."""

from tests.servers.kinds import ServerKind, find_server, find_servers
from tests.servers.server import PrivateServer, Server
from tests.servers.shared import shared_database, shared_server

__all__ = ["PrivateServer", "Server", "ServerKind", "find_server", "find_servers", "shared_database", "shared_server"]
