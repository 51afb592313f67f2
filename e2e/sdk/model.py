"""Asks the MCP server as a language model's host does, with the official SDK of another language.

Usage: model.py URL [--tenant TENANT] [--mode MODE] CALL...

Each CALL is a JSON object: {"tool": NAME, "arguments": {...}} or {"resource": URI}. MODE is
"legacy" for a session that begins with a handshake, "auto" for whatever the server offers. Prints
one line of JSON with what the server offers, then one for each call.
"""

import argparse
import asyncio
import json

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client


def dump(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def answer(client, call):
    try:
        if "tool" in call:
            return dump(await client.call_tool(call["tool"], call["arguments"]))
        return dump(await client.read_resource(call["resource"]))
    except MCPError as error:
        return {"code": error.error.code, "message": error.error.message}


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("calls", nargs="*", type=json.loads)
    arguments.add_argument("--tenant")
    arguments.add_argument("--mode", default="auto")
    arguments = arguments.parse_args()
    headers = {"X-Scope-OrgID": arguments.tenant} if arguments.tenant else {}
    async with httpx2.AsyncClient(headers=headers) as http:
        transport = streamable_http_client(arguments.url, http_client=http)
        async with Client(transport, mode=arguments.mode) as client:
            offer = {
                "server": dump(client.server_info),
                "tools": dump(await client.list_tools())["tools"],
                "resources": dump(await client.list_resources())["resources"],
            }
            print(json.dumps(offer))
            for call in arguments.calls:
                print(json.dumps(await answer(client, call)))


asyncio.run(main())
