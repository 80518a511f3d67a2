"""Brings the tools of Model Context Protocol servers to a loop, and a loop to the clients of that protocol."""

from power_loop.contrib.mcp.client import MCPClient
from power_loop.contrib.mcp.http_channel import HttpMCPClient
from power_loop.contrib.mcp.register import MCPRegistration, register_mcp_tools
from power_loop.contrib.mcp.server import AgentMCPServer, serve_stdio
from power_loop.contrib.mcp.source import MCPResult, MCPTool, MCPToolSource
from power_loop.contrib.mcp.stdio_channel import StdioMCPClient

__all__ = [
    "AgentMCPServer",
    "HttpMCPClient",
    "MCPClient",
    "MCPRegistration",
    "MCPResult",
    "MCPTool",
    "MCPToolSource",
    "StdioMCPClient",
    "register_mcp_tools",
    "serve_stdio",
]
