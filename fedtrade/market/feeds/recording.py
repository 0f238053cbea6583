"""What went over a venue's line, as JSON lines in zstd: written by us, and read as others write it.

    {"t":"header","format":2,"exchange":"binance usdm","markets":[["BTCUSDT",1,3]]}
    {"t":"connect","conn":"ws","ts":1626994927.139662001,"addr":"wss://…"}
    {"t":"send","conn":"ws","ts":…,"data":"…"}     {"t":"recv","conn":"ws","ts":…,"data":"…"}
    {"t":"http","conn":"web","ts":…,"url":"https://…","data":"…"}

That is cryptofeed's format 2, the one of four that can carry web answers and several connections; `ts`
is in seconds, with nine digits where we write it. Read are also cryptofeed's first format (no header
and no `conn`), and Binance's lines `<received, ns> <JSON>`, in which the web's answer is the one that
has no stream.

A writer ends a zstd frame with every flush, so that what was flushed can be read after a crash. What
an unfinished end leaves is a line without its end: it is left out, and `Recording.torn` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import IO, Final, Literal

import msgspec
import zstandard

from fedtrade.errors import BadInput, Refusal
from fedtrade.market.feeds.events import UNREADABLE, Market

FORMAT: Final = 2
LINE_MAX: Final = 32 * 1024 * 1024
"""Bytes of a line; the longest that venues give (all instruments at once) have some millions."""
FLUSH_AT: Final = 256 * 1024
"""Bytes that a writer keeps at most before it writes them."""
_READ: Final = 256 * 1024
_NS: Final = 1_000_000_000
_SECONDS_MAX: Final = 2**33
"""Of any receive time; a line may say 1e999999999."""

Kind = Literal["header", "connect", "send", "recv", "http"]


class RecordingUnreadable(Refusal):
    """A line of a recording is none of the formats'."""

    def __init__(self, name: str, line: int, problem: str) -> None:
        super().__init__(
            f"{name}, line {line}: {problem}. Use a recording of `fedtrade feed record`, of "
            "cryptofeed, or of lines `<nanoseconds> <message>`; compressed with zstd or not."
        )
        self.name = name
        self.line = line


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened on a line. `url` is there for "connect" and "http", where it is known."""

    kind: Kind
    at_ns: int
    connection: str
    data: bytes = b""
    url: str = ""


class Header(msgspec.Struct, frozen=True):
    """What a recording says of itself; empty where it says nothing."""

    exchange: str = ""
    markets: tuple[tuple[str, int, int], ...] = ()
    """Symbol, decimals of price, decimals of size."""

    def of(self, venue: str) -> list[Market]:
        """The markets that it names."""
        return [Market(venue, *named) for named in self.markets]


class _Line(msgspec.Struct):
    t: Literal["header", "connect", "send", "recv", "http", "ws"]
    ts: Decimal = Decimal(0)
    conn: str = ""
    data: str = ""
    url: str = ""
    addr: str = ""


_line = msgspec.json.Decoder(_Line).decode
_header = msgspec.json.Decoder(Header).decode


class Recording:
    """A recording that is read once, from its first line on, in bounded memory."""

    def __init__(self, file: IO[bytes], name: str = "recording") -> None:
        """`file` is read from where it stands; `name` is for messages."""
        self.header = Header()
        self.torn = ""
        """What was left out at the end, as a sentence; known when everything else was read."""
        self._file, self._name = file, name

    def __iter__(self) -> Iterator[Entry]:
        """Every entry in order. Raises RecordingUnreadable."""
        for number, line in enumerate(self._lines(), 1):
            entry = _numbered(line) if line[:1].isdigit() else self._told(line, number)
            if entry is None:
                raise RecordingUnreadable(self._name, number, "it is of no known format")
            if entry.kind != "header":
                yield entry

    def _told(self, line: bytes, number: int) -> Entry | None:
        try:
            told = _line(line)
            if told.t == "header":
                self.header = _header(line)
        except UNREADABLE as error:
            raise RecordingUnreadable(self._name, number, str(error)) from error
        kind: Kind = "recv" if told.t == "ws" else told.t
        if (kind == "recv" and not told.data) or not 0 <= told.ts < _SECONDS_MAX:
            return None
        at_ns = int(told.ts * _NS)
        return Entry(kind, at_ns, told.conn, told.data.encode(), told.url or told.addr)

    def _lines(self) -> Iterator[bytes]:
        begun, number = b"", 0
        for block in self._blocks():
            *whole, rest = block.split(b"\n")
            for line in whole:
                number += 1
                if begun or line:
                    yield begun + line
                begun = b""
            begun += rest
            if len(begun) > LINE_MAX:
                raise RecordingUnreadable(self._name, number + 1, f"it is over {LINE_MAX} bytes")
        if begun and not self._ended(begun):
            self.torn = self.torn or (
                f"{self._name}: its last line has no end ({len(begun)} bytes): the recording was cut "
                "off there. It is left out."
            )
        elif begun:
            yield begun

    def _ended(self, last: bytes) -> bool:
        """Whether a last line without a line's end is whole all the same, as editors leave it."""
        try:
            msgspec.json.decode(last.partition(b" ")[2] if last[:1].isdigit() else last)
        except UNREADABLE:
            return False
        return True

    def _blocks(self) -> Iterator[bytes]:
        first = self._file.read(len(zstandard.FRAME_HEADER))
        rest = _Behind(first, self._file)
        read = rest.read
        if first == zstandard.FRAME_HEADER:
            reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(
                rest,  # type: ignore[arg-type]
                read_across_frames=True,
            )
            read = reader.read1  # gives what is unpacked before it says what cannot be
        while True:
            try:
                block = read(_READ)
            except zstandard.ZstdError as error:
                self.torn = f"{self._name}: it cannot be unpacked any further ({error})."
                return
            if not block:
                return
            yield block


class _Behind:
    """A file of which the first bytes were read."""

    def __init__(self, first: bytes, file: IO[bytes]) -> None:
        self._first, self._file = first, file

    def read(self, size: int) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._file.read(size)


def _numbered(line: bytes) -> Entry | None:
    """`<received, ns> <JSON>`, as Binance's combined streams are recorded."""
    at, _, frame = line.partition(b" ")
    if not at.isdigit() or not frame:
        return None
    kind: Kind = "http" if frame.startswith(b'{"lastUpdateId"') else "recv"
    return Entry(kind, int(at), "", frame)


class Recorder:
    """Writes a recording to a file handle. Everything flushed is there after a crash."""

    def __init__(self, file: IO[bytes], venue: str, markets: Sequence[Market]) -> None:
        """Appends to `file`, whose unfinished end was cut off before (`whole_until`)."""
        self._file = file
        self._kept = bytearray()
        self._packed = zstandard.ZstdCompressor(level=3)
        self.entries = 0
        named = [[each.symbol, each.price_decimals, each.size_decimals] for each in markets]
        self._put({"t": "header", "format": FORMAT, "exchange": venue, "markets": named})
        self.flush()

    def write(self, entry: Entry) -> None:
        """One thing that happened; on disk with the next flush at the latest. Raises BadInput."""
        at = msgspec.Raw(f"{entry.at_ns // _NS}.{entry.at_ns % _NS:09d}".encode())
        line: dict[str, object] = {"t": entry.kind, "conn": entry.connection, "ts": at}
        if entry.url:
            line["url" if entry.kind == "http" else "addr"] = entry.url
        if entry.kind != "connect":
            # what is no text cannot stand in JSON; feeds lose their books over it, and so in a replay
            line["data"] = entry.data.decode(errors="replace")
        self._put(line)
        self.entries += 1
        if len(self._kept) >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the file as one whole zstd frame."""
        if self._kept:
            self._file.write(self._packed.compress(bytes(self._kept)))
            self._file.flush()
            self._kept.clear()

    def _put(self, line: dict[str, object]) -> None:
        text = msgspec.json.encode(line)
        if len(text) > LINE_MAX:
            raise BadInput("recording", f"a message has {len(text)} bytes", "Leave it out.")
        self._kept += text
        self._kept += b"\n"


def whole_until(file: IO[bytes]) -> int:
    """How many bytes of a recording of ours are whole frames; behind them a crash left a torn one."""
    whole = read = 0
    frame = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
    while block := file.read(_READ):
        read += len(block)
        while block:
            try:
                frame.decompress(block)
            except zstandard.ZstdError:
                return whole
            block = frame.unused_data if frame.eof else b""
            if frame.eof:
                whole = read - len(block)
                frame = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
    return whole
