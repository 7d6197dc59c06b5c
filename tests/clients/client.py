"""Python's `websockets`, driven by lines of JSON: see driver.rs for the commands."""

import json
import sys
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

PATIENCE = 60
sockets = {}
opened = ExitStack()


def open_(name, url):
    try:
        # Whatever the server sends is to be seen, and the machine's proxies are not what is tested.
        connecting = connect(url, max_size=None, proxy=None, open_timeout=PATIENCE, close_timeout=PATIENCE)
        sockets[name] = opened.enter_context(connecting)
    except InvalidStatus as error:
        answer = error.response
        body = answer.body.decode()
        return {"refused": answer.status_code, "retry_after": answer.headers.get("Retry-After"), "body": body}
    return {"opened": True}


def text(name, pieces, repeat):
    pieces = [bytes(piece) * repeat for piece in pieces]
    # A list is one message in as many frames.
    return send(name, pieces if len(pieces) > 1 else pieces[0], text=True)


def binary(name, payload):
    return send(name, bytes(payload))


def send(name, payload, **how):
    try:
        sockets[name].send(payload, **how)
    except ConnectionClosed:
        pass  # `next` tells why
    return {"sent": True}


def ping(name, payload):
    answered = sockets[name].ping(payload)
    return {"pong": answered.wait(PATIENCE)}


def next_(name):
    try:
        message = sockets[name].recv(timeout=PATIENCE)
    except ConnectionClosed as end:
        return closed(end.rcvd)
    return {"text": message} if isinstance(message, str) else {"binary": list(message)}


def close(name, code, reason):
    socket = sockets[name]
    socket.close(code, reason)
    return closed(socket.protocol.close_rcvd)


def lose(name):
    socket = sockets.pop(name)
    socket.close_socket()
    return {"lost": True}


def closed(frame):
    if frame is None:
        return {"closed": {"code": 1006, "reason": ""}}
    return {"closed": {"code": int(frame.code), "reason": frame.reason}}


COMMANDS = {
    "open": open_,
    "text": text,
    "binary": binary,
    "ping": ping,
    "next": next_,
    "close": close,
    "lose": lose,
}

with opened:
    for line in sys.stdin:
        command = json.loads(line)
        answer = COMMANDS[command.pop("do")](**command)
        print(json.dumps(answer), flush=True)
