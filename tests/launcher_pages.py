"""The launcher's own HTTP pages, as a prober reads them."""

import http.client


def page(health: str, path: str) -> tuple[int, str]:
    """Status and text of a page of the launcher at `host:port`."""
    connection = http.client.HTTPConnection(health, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
