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


# Names of data files: patterns of C, lists, files that are none, names that lead elsewhere.
DATA_NAMES = (
    *(
        "%s%d 1 30 1",
        "%n 1 9 1",
        "%5000d 1 9 1",
        "%d 0 9 0",
        "%d 0 9 -1",
        "%d 9 0 1",
        "%d 0 2147483647 1",
        "s%03d.raw 0 6 1",
        "s%03d.raw 0 6",
    ),
    *(
        "s%03d.raw 0",
        "s%03d.raw",
        "%",
        "%%d 0 6 1",
        "s%03x.raw 0 6 1",
        "s%*d.raw 0 6 1",
        "s%999999999d.raw 0 6 1",
        "s%03d%n.raw 0 6 1",
        "LIST",
    ),
    *(
        "LIST 1",
        "LIST 3",
        "LIST 99",
        "LIST\n" + "s000.raw\n" * 7,
        "LIST\n" + "fifo\n" * 7,
        "LIST\n/dev/zero",
        "/dev/zero",
        "fifo",
        ".",
        "..",
    ),
    *("../a.raw", "link", "LOCAL", "local", "-", "", "x" * 600, "s000.raw", "a.raw", "LIST\n" + "%n\n" * 7, "LIST 2\n" + "s%03d.raw\n" * 7),
)
# Fields of text headers, with values that sizes and places are made of.
FIELDS = (
    *("NDims", "DimSize", "ElementDataFile", "HeaderSize", "CompressedData", "CompressedDataSize", "BinaryData", "ElementType"),
    *(
        "Name",
        "Comment",
        "ElementNumberOfChannels",
        "ElementSpacing",
        "TransformMatrix",
        "Offset",
        "ElementSize",
        "ObjectType",
        "BinaryDataByteOrderMSB",
    ),
)
NRRD_FIELDS = (
    *("dimension", "sizes", "data file", "datafile", "byte skip", "line skip", "encoding", "type", "block size", "spacings", "kinds"),
    *("space", "space directions", "space origin", "space dimension", "endian", "axis mins", "axis maxs", "units", "labels", "centers"),
)
VALUES = (
    *(
        "raw",
        "gzip",
        "bzip2",
        "hex",
        "ascii",
        "zrl",
        "True",
        "False",
        "MET_CHAR",
        "MET_DOUBLE",
        "MET_FLOAT_ARRAY[3]",
        "MET_STRING",
        "block",
    ),
    *(
        "double",
        "float",
        "9 8 7",
        "9 8",
        "9 8 7 1",
        "60000 60000 2",
        "0 0 0",
        "1e-30 1 1",
        "nan nan nan",
        "1 0 0 1 0 0 0 0 1",
        "(1,0,0) (1,0,0) (0,0,1)",
    ),
    *(
        "none none none",
        "3",
        "scanner-xyz-time",
        "left-posterior-superior",
        "x" * 9000,
        '"' * 50,
        "\r",
        "\0",
        "domain domain domain",
        "RGB-color",
    ),
)


def set_field(content: bytes, rng: np.random.Generator) -> Bytes:
    """A field of a MetaImage or NRRD header set, or put in once more: to a name of data files, a number, another value, or nothing."""
    head, rest = content[:3000], content[3000:]
    nrrd = content.startswith(b"NRRD")
    fields, sign = (NRRD_FIELDS, ": ") if nrrd else (FIELDS, " = ")
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(fields))
        names = rng.random() < 0.4 or ("file" in name.lower() and rng.random() < 0.8)
        if names:
            name = str(rng.choice(["data file", "datafile", "Data File"])) if nrrd else "ElementDataFile"
        value = str(
            rng.choice(DATA_NAMES if names else [" ".join(map(str, rng.choice(NUMBERS, size=3))), rng.choice(NUMBERS), rng.choice(VALUES)])
        )
        line = f"{name}{rng.choice([sign] * 8 + [':', '=', ':=', '  : '])}{value}".encode("latin-1")
        found = re.search(rb"(?mi)^" + name.encode() + rb" *[:=].*$", head)
        if found and rng.random() < 0.8:
            head = head[: found.start()] + line + head[found.end() :]
        else:
            start = head.index(b"\n") + 1
            head = head[:start] + line + b"\n" + head[start:]
    return head + rest


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
            flat[at] = rng.choice([0, -1, np.nan, np.inf, -np.inf, 1e38, 1e-38, -1e30, 1e30, 1e-12, 1 + 2e-7, 1.001, 2**31, 2**33])
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


# Elements of DICOM on which the size of the voxels depends (Rows, Columns, frames, bits, samples), and the pixel data.
DICOM_SHAPE = (b"\x28\0\x10\0", b"\x28\0\x11\0", b"\x28\0\x08\0", b"\x28\0\0\1", b"\x28\0\1\1", b"\x28\0\2\0")
PIXEL_DATA = b"\xe0\x7f\x10\0"
DICOM_KINDS = (b"OB", b"OW", b"SQ", b"UN", b"US", b"UL", b"DS", b"IS", b"UI", b"UT", b"FD", b"CS", b"LO", b"ZZ", b"\0\0")


def _elements(content: bytes) -> list[int]:
    """Where the elements of a file of explicit kinds begin, or what looks like one, including those in sequences."""
    return [m.start() - 4 for m in re.finditer(b"|".join(DICOM_KINDS[:-2]), content) if m.start() >= 132]


def set_dicom_length(content: bytes, rng: np.random.Generator) -> Bytes:
    """Length of an element, or of the pixel data, at the ends of its range or beyond the file."""
    out, found = bytearray(content), _elements(content)
    at = content.rfind(PIXEL_DATA) if rng.random() < 0.3 else found[int(rng.integers(len(found)))]
    long = content[at + 4 : at + 6] in {b"OB", b"OW", b"SQ", b"UN", b"UT"}
    values = (*WORDS, 100, len(content), len(content) // 2, len(content) + 1, 0xFFFFFFFE, 0x30000000)
    length = int(rng.choice(values))
    if long:
        out[at + 8 : at + 12] = struct.pack("<I", length)
    else:
        out[at + 6 : at + 8] = struct.pack("<H", length & 0xFFFF)
    return out


def set_dicom_shape(content: bytes, rng: np.random.Generator) -> Bytes:
    """Rows, columns, frames, bits or samples of a file."""
    out = bytearray(content)
    for tag in rng.choice(len(DICOM_SHAPE), size=int(rng.integers(1, 4))):
        at = content.find(DICOM_SHAPE[int(tag)])
        if at > 0 and content[at + 4 : at + 6] == b"US":
            out[at + 8 : at + 10] = struct.pack("<H", int(rng.choice([0, 1, 2, 3, 7, 8, 9, 10, 12, 16, 32, 64, 255, 1000, 0x7FFF, 0xFFFF])))
        elif at > 0:
            n = content[at + 6]
            out[at + 8 : at + 8 + n] = str(rng.choice(["0", "1", "9", "-1", "99", "", "x"])).encode()[:n].ljust(n)
    return out


def set_dicom_kind(content: bytes, rng: np.random.Generator) -> Bytes:
    """Value representation of an element."""
    out, found = bytearray(content), _elements(content)
    at = found[int(rng.integers(len(found)))]
    out[at + 4 : at + 6] = DICOM_KINDS[int(rng.integers(len(DICOM_KINDS)))]
    return out


def insert_sequence(content: bytes, rng: np.random.Generator) -> Bytes:
    """A sequence of undefined length put before an element: nested, without an end, or with an element that is longer than the file."""
    found = _elements(content)
    at = found[int(rng.integers(len(found)))]
    head, item, ends = (
        b"\x09\0\x10\x10SQ\0\0\xff\xff\xff\xff",
        b"\xfe\xff\0\xe0\xff\xff\xff\xff",
        b"\xfe\xff\r\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
    )
    depth = int(rng.choice([1, 2, 20, 2000]))
    inner = b"\x09\0\x11\x10OB\0\0" + struct.pack("<I", int(rng.choice([0, 4, 0x30000000, 0xFFFFFFFE, 0xFFFFFFFF]))) + b"abcd"
    tail = ends * int(rng.choice([0, 1, depth]))
    return content[:at] + (head + item) * depth + inner[: int(rng.choice([0, len(inner)]))] + tail + content[at:]


def cut_pixels(content: bytes, rng: np.random.Generator) -> Bytes:
    """Pixel data shorter than the header says, soundly declared."""
    at = content.rfind(PIXEL_DATA)
    left = int(rng.choice([0, 2, 64, 100, int(rng.integers(1, max(len(content) - at, 2)))]))
    return content[: at + 8] + struct.pack("<I", left) + content[at + 12 : at + 12 + left]


DICOM = (set_dicom_length, set_dicom_length, set_dicom_shape, set_dicom_shape, set_dicom_kind, insert_sequence, cut_pixels)
ANYWHERE = (flip_bits, flip_head, truncate, splice, set_word)
HEADER = (*ANYWHERE, set_numbers, shuffle_lines, *[set_field] * 8)
TEXT = (*ANYWHERE, set_numbers, set_numbers, set_numbers, shuffle_lines)
