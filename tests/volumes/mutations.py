"""Broken files, made from sound ones: bits, bytes and blocks anywhere, and header fields at the ends of their range. Seeded."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable

import nibabel as nib
import numpy as np

Bytes = bytes | bytearray
Mutation = Callable[[bytes, np.random.Generator], Bytes]

# What a number of a text header, or a field of four bytes, may become.
NUMBERS = (
    *("0", "-1", "1", "65536", "2147483647", "2147483648", "-2147483648", "4294967295", "9223372036854775807", "99999999999999999999"),
    *("nan", "inf", "-inf", "1e308", "1e-320", "-0", "", "x", "0x10", "1" * 400),
)
WORDS = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x7F800000, 0xFF800000, 0x00000001)
# Tags that say how a TIFF's pixels are stored, what they are, and where more pages are.
TIFF_TAGS = (*range(254, 260), 262, 266, 270, 273, 274, 277, 278, 279, 282, 284, 296, 297, 317, 320, *range(322, 326), 330, 338, 339, 530)


def flip_bits(content: bytes, rng: np.random.Generator) -> Bytes:
    """One to eight bits turned over."""
    out = bytearray(content)
    for at in rng.integers(len(out) or 1, size=rng.integers(1, 9) if out else 0):
        out[at] ^= 1 << int(rng.integers(8))
    return out


def flip_head(content: bytes, rng: np.random.Generator) -> Bytes:
    """Bits of the first few hundred bytes, where headers are."""
    head = int(rng.choice([32, 128, 400, 1000]))
    return bytes(flip_bits(content[:head], rng)) + content[head:]


def truncate(content: bytes, rng: np.random.Generator) -> Bytes:
    """A beginning of the file, or all but a few bytes."""
    return content[: int(rng.integers(len(content) + 1))] if rng.random() < 0.7 else content[: -int(rng.integers(1, 20))]


def splice(content: bytes, rng: np.random.Generator) -> Bytes:
    """A block taken from elsewhere, left out, doubled, or of zeros, ones or noise."""
    a, b, c = sorted(int(n) for n in rng.integers(len(content) + 1, size=3))
    noise = rng.integers(0, 256, size=int(rng.integers(1, 64)), dtype=np.uint8).tobytes()
    parts = (content[b:c], b"", content[a:b] * 2, bytes(b - a), b"\xff" * (b - a), noise)
    return content[:a] + parts[int(rng.integers(len(parts)))] + content[b:]


def set_word(content: bytes, rng: np.random.Generator) -> Bytes:
    """Two, four or eight bytes of the head, or of the end, set to the ends of their range."""
    out = bytearray(content)
    width, order = int(rng.choice([2, 4, 8])), str(rng.choice(["little", "big"]))
    value = int(rng.choice(WORDS)).to_bytes(8, order)  # type: ignore[arg-type]  # a literal
    word = value[:width] if order == "little" else value[-width:]
    span = min(len(out), 400)
    at = int(rng.integers(max(span - width, 1)))
    at = at if rng.random() < 0.7 else len(out) - span + at
    out[at : at + width] = word
    return out


def set_numbers(content: bytes, rng: np.random.Generator) -> Bytes:
    """Numbers in the text of the head set to the ends of their range."""
    head, rest = content[:3000], content[3000:]
    found = list(re.finditer(rb"-?\d+(\.\d+)?([eE]-?\d+)?", head))
    for match in sorted((found[int(n)] for n in {int(n) for n in rng.integers(len(found), size=2)} if found), key=lambda m: -m.start()):
        head = head[: match.start()] + str(rng.choice(NUMBERS)).encode() + head[match.end() :]
    return head + rest


def shuffle_lines(content: bytes, rng: np.random.Generator) -> Bytes:
    """A line of the head doubled, left out, moved to the front, or given another's value."""
    lines = content.split(b"\n")
    count = min(len(lines), 20)
    a, b = (int(n) for n in rng.integers(count, size=2))
    kind = int(rng.integers(4))
    if kind == 3:
        lines[a] = lines[a].split(b"=")[0].split(b":")[0] + (b" = " if b"=" in lines[b] else b": ") + re.split(rb"[=:]", lines[b])[-1]
    else:
        line = lines[a] if kind == 0 else lines.pop(a)
        lines[b:b] = [line] if kind != 1 else []
    return b"\n".join(lines)


def set_nifti(content: bytes, rng: np.random.Generator) -> Bytes:
    """Fields of a NIfTI header at the ends of their range, alone or together."""
    header = nib.Nifti1Header(content[:348], check=False)
    for name in rng.choice([n for n in header.keys() if n != "sizeof_hdr" or rng.random() < 0.1], size=int(rng.integers(1, 4))):  # noqa: SIM118
        field = header[name]
        flat = np.atleast_1d(field).copy()
        at = int(rng.integers(flat.size))
        if flat.dtype.kind in "iu":
            info = np.iinfo(flat.dtype)
            flat[at] = rng.choice([0, 1, -1 if info.min else 1, info.min, info.max, info.max // 2, int(rng.integers(0, 255)) & 127])
        elif flat.dtype.kind == "f":
            flat[at] = rng.choice([0, -1, np.nan, np.inf, -np.inf, 1e38, 1e-38, -1e30, 2**31, 2**33])
        else:
            flat[at] = rng.integers(0, 256, size=4, dtype=np.uint8).tobytes()
        header[name] = flat if field.ndim else flat[0]
    return header.binaryblock + content[348:]


def zipped(mutation: Mutation) -> Mutation:
    """The mutation of what is inside of a gzip file, which is packed soundly again."""
    return lambda content, rng: gzip.compress(bytes(mutation(gzip.decompress(content), rng)), 1)


def set_png(content: bytes, rng: np.random.Generator) -> Bytes:
    """Size, depth or colours of a PNG, its checksum mended."""
    words = [*struct.unpack(">II", content[16:24]), *content[24:29]]
    for at in rng.integers(7, size=int(rng.integers(1, 3))):
        words[at] = int(rng.choice(WORDS)) if at < 2 else int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]))
    chunk = b"IHDR" + struct.pack(">II", *words[:2]) + bytes(words[2:])
    return content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


def set_tiff(content: bytes, rng: np.random.Generator) -> Bytes:
    """Entries of a TIFF's directories: tags, types, counts, values and offsets; or where the next directory is."""
    out = bytearray(content)
    order = "<" if content[:2] == b"II" else ">"
    starts, counts = [], []
    (start,) = struct.unpack(order + "I", content[4:8])
    while start and start not in starts:
        (count,) = struct.unpack(order + "H", content[start : start + 2])
        starts.append(start)
        counts.append(count)
        (start,) = struct.unpack(order + "I", content[start + 2 + 12 * count : start + 6 + 12 * count])
    for _ in range(int(rng.integers(1, 4))):
        n = int(rng.integers(len(starts)))
        at = starts[n] + 2 + 12 * int(rng.integers(counts[n]))
        words = (*WORDS, *starts, len(content), len(content) - 1, int(rng.integers(len(content))), int(rng.integers(70)))
        word = struct.pack(order + "I", int(rng.choice(words)))
        kind = int(rng.integers(6))
        if kind == 0:
            out[at : at + 2] = struct.pack(order + "H", int(rng.choice(TIFF_TAGS)))
        elif kind == 1:
            out[at + 2 : at + 4] = struct.pack(order + "H", int(rng.integers(0, 19)))
        elif kind == 5:
            end = starts[n] + 2 + 12 * counts[n]
            out[end : end + 4] = word
        else:
            where = at + (4 if kind == 2 else 8)
            out[where : where + 4] = word
    return out


ANYWHERE = (flip_bits, flip_head, truncate, splice, set_word)
TEXT = (*ANYWHERE, set_numbers, set_numbers, set_numbers, shuffle_lines)
