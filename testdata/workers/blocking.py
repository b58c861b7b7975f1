"""The simplest of servers: it blocks in accept, and serves one after the other. At TERM
it finishes the request that it is at, if any."""
import os
import signal
import socket
import sys

WHO = "blocking %s pid=%d" % (os.environ["HANDOVER_WORKER"], os.getpid())
listener = socket.socket(fileno=3)
busy = draining = False


def drain(*_):
    global draining
    draining = True
    if not busy:
        sys.exit(0)


signal.signal(signal.SIGTERM, drain)
print("serving", flush=True)
while not draining:
    conn, _ = listener.accept()
    busy = True
    with conn:
        request = b""
        while b"\r\n\r\n" not in request and (more := conn.recv(4096)):
            request += more
        body = WHO + "\n"
        conn.sendall(("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode())
    busy = False
