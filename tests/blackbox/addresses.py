"""Loopback addresses of our own.

Mail by MX goes to port 25, so what differs between hosts of a test, and between tests that run at
the same time, is the address: any of 127.0.0.0/8 is this machine. A random one of four million is
taken, and tried, so that nobody has to keep count.
"""
import random
import socket

_chance = random.SystemRandom()


def fresh_ip():
    """A loopback address where nobody listens on port 25."""
    while True:
        ip = f"127.{_chance.randint(64, 127)}.{_chance.randint(0, 255)}.{_chance.randint(2, 253)}"
        with socket.socket() as s:
            try:
                s.bind((ip, 25))
                return ip
            except OSError:
                continue


def free_port(ip="127.0.0.1"):
    """A port that was free a moment ago."""
    with socket.socket() as s:
        s.bind((ip, 0))
        return s.getsockname()[1]
