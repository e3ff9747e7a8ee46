"""On PYTHONPATH: no process reaches a network; what it asked for stands in the file that NO_NETWORK names."""
import os
import sys


def refuse(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        asked = arguments[1] if event in ("socket.connect", "socket.bind", "socket.sendto") else arguments[0]
        if not isinstance(asked, str | bytes) or event.startswith("socket.get"):  # a string: a socket of this machine
            with open(os.environ["NO_NETWORK"], "a") as file:
                file.write(f"{sys.argv[:1]} {event} {asked}\n")
            raise OSError(f"the tests refuse {event}")


sys.addaudithook(refuse)
