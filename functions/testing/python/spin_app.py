"""A component of Spin's, with Spin's SDK for Python: an application over all that one keeps.

`/` lists the keys, `/notes` is a table, `/settings/NAME` tells a setting, `/elsewhere` needs
Redis, and any other path is a key: it stores what is put there, shows it, and forgets it.
`functions/testing/spin` has the same application.
"""

from urllib.parse import urlsplit

from componentize_py_types import Err
from spin_sdk import http, key_value, redis, util, variables
from spin_sdk.http import Request, Response
from spin_sdk.sqlite import Connection, Value, Value_Integer, Value_Text

TABLE = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL)"
SETTINGS = "/settings/"


def says(text: str) -> Response:
    return Response(200, {"content-type": "text/plain"}, text.encode())


def is_there(found: bool) -> Response:
    return Response(200 if found else 404, {}, b"")


def done() -> Response:
    return Response(204, {}, b"")


async def keys() -> Response:
    with await key_value.open_default() as store:
        names = await util.collect(await store.get_keys())
    return says("".join(f"{name}\n" for name in names))


async def entry(method: str, key: str, value: bytes) -> Response:
    with await key_value.open_default() as store:
        match method:
            case "PUT":
                await store.set(key, value)
                return done()
            case "GET":
                found = await store.get(key)
                return is_there(False) if found is None else Response(200, {}, found)
            case "HEAD":
                return is_there(await store.exists(key))
            case "DELETE":
                await store.delete(key)
                return done()
    return Response(405, {}, b"")


async def rows(connection: Connection, statement: str, *values: Value) -> list[list[object]]:
    _, stream, ended = await connection.execute(statement, list(values))
    found = await util.collect((stream, ended))
    return [[value.value for value in row.values] for row in found]


async def notes(method: str, query: str, text: str) -> Response:
    """Adds one, and says its number and how many rows that changed; or lists those from a number on."""
    with await Connection.open_default() as connection:
        await rows(connection, TABLE)
        if method == "POST":
            statement = "INSERT INTO notes (text) VALUES (?) RETURNING id"
            [[id]] = await rows(connection, statement, Value_Text(text))
            last, changes = await connection.last_insert_rowid(), await connection.changes()
            return says(f"{id} {last} {changes}")
        statement = "SELECT id, text FROM notes WHERE id >= ? ORDER BY id"
        found = await rows(connection, statement, Value_Integer(int(query or "0")))
    return says("".join(f"{id} {text}\n" for id, text in found))


async def answer(method: str, path: str, query: str, body: bytes) -> Response:
    if path == "/":
        return await keys()
    if path == "/notes":
        return await notes(method, query, body.decode())
    if path == "/elsewhere":
        await redis.open("redis://127.0.0.1")
        return done()
    if path.startswith(SETTINGS):
        return says(await variables.get(path.removeprefix(SETTINGS)))
    return await entry(method, path, body)


class HttpHandler(http.Handler):
    async def handle_request(self, request: Request) -> Response:
        address = urlsplit(request.uri)
        try:
            return await answer(request.method, address.path, address.query, request.body or b"")
        except Err as refused:
            return Response(400, {}, str(refused.value).encode())
