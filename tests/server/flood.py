"""A gate in this process, a flood from another: how much memory 800 MB cost. Run by test_gate.py."""

import asyncio
import json
import resource
import socket
import ssl
import sys
import tempfile
from base64 import b64encode
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.certificates import create_authority, issue
from server.gate import Gate

FLOOD_BYTES = 800 * 10**6
BLOCK = bytes(2**20)


def signed_headers(key):
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    stamp = datetime.now(UTC).isoformat()
    signature = key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    return pem, {
        "flwr-public-key": b64encode(pem).decode(),
        "flwr-timestamp": stamp,
        "flwr-signature": b64encode(signature).decode(),
    }


def flood(port, ca, head, chunked):
    """Send up to 800 MB, reconnecting when the gate hangs up; the sender is not the one measured."""
    context = ssl.create_default_context(cafile=ca)
    sent = 0
    for _ in range(50):
        try:
            plain = socket.create_connection(("127.0.0.1", port), timeout=10)
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                connection.sendall(head)
                while sent < FLOOD_BYTES:
                    connection.sendall(b"100000\r\n" + BLOCK + b"\r\n" if chunked else BLOCK)
                    sent += len(BLOCK)
        except OSError:
            continue
        break


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(attack):
    folder = Path(tempfile.mkdtemp(prefix="flood-"))
    create_authority(folder, "test", datetime.now(UTC))
    tls = issue(folder, ["127.0.0.1"], datetime.now(UTC))
    node, stranger = (
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP384R1()),
    )
    pem, good = signed_headers(node)
    _, bad = signed_headers(stranger)
    reached = []

    async def behind(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        reached.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    superlink = await asyncio.start_server(behind, "127.0.0.1", 0, ssl=tls.server_context())
    address = f"https://127.0.0.1:{superlink.sockets[0].getsockname()[1]}"
    gate = Gate(address, tls.client_context(), {pem}.__contains__)
    port = await gate.open("127.0.0.1", 0, tls.server_context())

    def request(headers, length):
        named = headers | length
        lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        return f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: g\r\n{lines}\r\n".encode()

    async def once():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls.client_context())
        writer.write(request(good, {"Content-Length": "4"}) + b"warm")
        status = int((await reader.readline()).split()[1])
        writer.close()
        return status

    await once()
    reached.clear()
    before_mb = peak_mb()
    chunked = attack == "chunked"
    length = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(FLOOD_BYTES)}
    head = request(bad if attack == "stranger" else good, length)
    sender = get_context("spawn").Process(target=flood, args=(port, str(tls.ca), head, chunked))
    sender.start()
    await asyncio.to_thread(sender.join, 60)
    if sender.is_alive():
        sender.kill()
    grown_mb = peak_mb() - before_mb
    found = {"grown_mb": grown_mb, "reached": len(reached), "after": await once()}
    await gate.close()
    superlink.close()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
