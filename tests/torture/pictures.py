"""Strange pictures: every mode and format that Pillow writes, odd sizes, and small files that declare huge ones."""

import functools
import io
import struct
import zlib
from random import Random

import numpy as np
import PIL.Image

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "CMYK", "F")
FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": MODES,
    "GIF": ("P", "L"),
    "PPM": ("L", "RGB"),
}
SIZES = ((8192, 8192), (10_000, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (65_535, 1024))


def strange_picture(random: Random, side: int = 32) -> bytes:
    """A picture file of a mode, size or kind that an archive should not have; some are allowed all the same."""
    return random.choice((of_any_mode, of_any_mode, of_any_size, animated, huge, huge, with_long_text))(random, side)


def _pixels(random: Random, mode: str, width: int, height: int) -> PIL.Image.Image:
    values = np.random.default_rng(random.randrange(2**32))
    if mode in ("I;16", "I", "F"):
        top = random.choice((3, 255, 65535))
        return PIL.Image.fromarray(values.integers(0, top + 1, [height, width]).astype(np.uint16)).convert(mode)
    return PIL.Image.fromarray(values.integers(0, random.choice((3, 256)), [height, width, 3], np.uint8)).convert(mode)


def _encoded(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of_any_mode(random: Random, side: int) -> bytes:
    """The right size, another mode or format; with a turn in EXIF now and then."""
    kind = random.choice((*FORMATS, "PNG", "PNG"))
    options = {}
    if kind in ("PNG", "JPEG", "WEBP") and random.random() < 0.3:
        exif = PIL.Image.Exif()
        exif[0x0112] = random.choice((3, 6, 8, 9, 0))
        options["exif"] = exif
    return _encoded(_pixels(random, random.choice(FORMATS[kind]), side, side), kind, **options)


def of_any_size(random: Random, side: int) -> bytes:
    """Another size: a single pixel, oblong, no power of two."""
    sizes = (1, 2, side // 2, side - 1, side + 1, 2 * side, 1000)
    mode = random.choice(("L", "RGB", "P"))
    return _encoded(_pixels(random, mode, random.choice(sizes), random.choice(sizes)), "PNG")


def animated(random: Random, side: int) -> bytes:
    """Several pictures in one file."""
    frames = [_pixels(random, "RGB", side, side) for _ in range(4)]
    kind = random.choice(("PNG", "WEBP"))
    return _encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=10)


def huge(random: Random, side: int) -> bytes:
    """A few hundred kilobytes that declare, and partly hold, an enormous picture."""
    width, height = random.choice(SIZES)
    bits, colour = random.choice(((8, 2), (8, 0), (16, 6), (16, 0), (1, 3), (8, 6)))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, random.choice((0, 0, 1)))
    chunks = [(b"IHDR", header), (b"IDAT", packed_zeros(random.choice((1, 300)))), (b"IEND", b"")]
    if colour == 3:
        chunks.insert(1, (b"PLTE", bytes(6)))
    return _png(chunks)


def with_long_text(random: Random, side: int) -> bytes:
    """A small picture with compressed text or a colour profile that unpacks to half a gigabyte."""
    body = _encoded(_pixels(random, "RGB", side, side), "PNG")
    kind = random.choice((b"zTXt", b"iCCP"))
    end = 8 + 25
    return body[:end] + _png([(kind, b"a\0\0" + packed_zeros(512))])[8:] + body[end:]


@functools.cache
def packed_zeros(megabytes: int) -> bytes:
    """What zlib makes of so many zeros: a thousandth."""
    packer = zlib.compressobj(1)
    start = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands alone, so it can be repeated
    checksum = functools.reduce(lambda adler, _: zlib.adler32(bytes(1 << 20), adler), range(megabytes), 1)
    return start + part * (megabytes - 1) + b"\x01\0\0\xff\xff" + struct.pack(">I", checksum)


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
