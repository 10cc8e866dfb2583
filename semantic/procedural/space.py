"""The head in three dimensions: its pose, the round solids it is made of, and the planes its features lie on.

Head space has its origin in the middle of the head. x points right in the picture, y down, z out of the face.
The picture spans [-1, 1] in x and y. Projection is orthographic.
"""

import math
from collections.abc import Sequence

import numpy as np

from semantic.procedural.draw import Canvas, Window
from semantic.procedural.sdf import length

Array = np.ndarray
Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]


def rotation(yaw: float, pitch: float, roll: float) -> Matrix:
    """Returns the rotation by yaw, then pitch, then roll, in radians.

    Positive angles turn to the right of the picture, downwards, and clockwise.
    """
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
    turned = ((cy, 0.0, sy), (-sp * sy, cp, sp * cy), (-cp * sy, -sp, cp * cy))
    first, second, third = turned
    return (
        tuple(cr * a - sr * b for a, b in zip(first, second, strict=True)),
        tuple(sr * a + cr * b for a, b in zip(first, second, strict=True)),
        third,
    )


def _apply(m: Matrix, v: Sequence[float]) -> Vector:
    return tuple(row[0] * v[0] + row[1] * v[1] + row[2] * v[2] for row in m)


def _conjugate(m: Matrix, diagonal: Sequence[float]) -> Matrix:
    """Returns m · diag(diagonal) · m transposed."""
    return tuple(tuple(sum(a * d * b for a, b, d in zip(r, q, diagonal, strict=True)) for q in m) for r in m)


class Pose:
    """Where the head is and how it is turned.

    Args:
        yaw, pitch, roll: radians. Positive turns to the right of the picture, downwards, clockwise.
        scale: size of the head.
        shift: (x, y) of the neck's pivot in the picture.
    """

    PIVOT = (0.0, 0.42, -0.12)  # pivot of the head on the neck

    def __init__(self, yaw: float, pitch: float, roll: float, scale: float, shift: Sequence[float]):
        self.yaw, self.pitch, self.roll, self.scale = float(yaw), float(pitch), float(roll), float(scale)
        self.matrix = rotation(yaw, pitch, roll)
        x, y, z = _apply(self.matrix, self.PIVOT)
        self.offset = (shift[0] - scale * x, shift[1] - scale * y, -scale * z)

    def point(self, p: Sequence[float]) -> Vector:
        """Returns the picture x, y and depth (larger is nearer) of a point in head space."""
        x, y, z = _apply(self.matrix, p)
        return self.offset[0] + self.scale * x, self.offset[1] + self.scale * y, self.offset[2] + self.scale * z

    def xy(self, p: Sequence[float]) -> tuple[float, float]:
        return self.point(p)[:2]

    def direction(self, v: Sequence[float]) -> Vector:
        """Returns a head-space direction as seen in the picture."""
        return _apply(self.matrix, v)

    def unproject(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Returns the head-space coordinates of picture points with depth."""
        dx, dy, dz = x - self.offset[0], y - self.offset[1], z - self.offset[2]
        k = 1 / self.scale
        return tuple((k * a) * dx + (k * b) * dy + (k * c) * dz for a, b, c in zip(*self.matrix, strict=True))


class Ellipsoid:
    """An ellipsoid with the axes of head space."""

    def __init__(self, pose: Pose, center: Sequence[float], radii: Sequence[float]):
        self.cx, self.cy, self.cz = pose.point(center)
        squares = [(r * pose.scale) ** 2 for r in radii]
        spread = _conjugate(pose.matrix, squares)
        self.inverse = _conjugate(pose.matrix, [1 / v for v in squares])
        # The silhouette of an ellipsoid with covariance M is the ellipse of the upper left block of M.
        area = spread[0][0] * spread[1][1] - spread[0][1] ** 2
        self.outline = (spread[1][1] / area, -spread[0][1] / area, spread[0][0] / area)
        self.half = (spread[0][0] ** 0.5, spread[1][1] ** 0.5)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Returns x0, y0, x1, y1 in the picture."""
        return self.cx - self.half[0], self.cy - self.half[1], self.cx + self.half[0], self.cy + self.half[1]

    def distance(self, x: Array, y: Array) -> Array:
        """Returns the approximate distance to the outline."""
        return self._outline(x - self.cx, y - self.cy)[1]

    def _outline(self, dx: Array, dy: Array) -> tuple[Array, Array]:
        a, b, c = self.outline
        gx, gy = a * dx + b * dy, b * dx + c * dy
        q = gx * dx + gy * dy
        k = np.sqrt(q)
        return q, k * (k - 1) / (length(gx, gy) + 1e-6)

    def surface(self, x: Array, y: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Returns the distance to the outline, depth of the front, and the normal (nx, ny, nz), on the grid."""
        dx, dy = x - self.cx, y - self.cy
        q, distance = self._outline(dx, dy)
        n = self.inverse
        # Beyond the outline the rim goes on, falling away.
        dz = np.sqrt(np.maximum(1 - q, 0)) * n[2][2] ** -0.5 - (n[2][0] * dx + n[2][1] * dy) * (1 / n[2][2])
        nx = n[0][0] * dx + n[0][1] * dy + n[0][2] * dz
        ny = n[1][0] * dx + n[1][1] * dy + n[1][2] * dz
        nz = n[2][0] * dx + n[2][1] * dy + n[2][2] * dz
        size = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-9)
        return distance, self.cz + dz - 4 * np.maximum(distance, 0), nx * size, ny * size, nz * size


class Solid:
    """Ellipsoids melted together.

    Args:
        parts: ellipsoids.
        blend: width over which depths and normals blend.
        outline: width over which the silhouette's creases are rounded (as `blend` by default).
    """

    def __init__(self, parts: Sequence[Ellipsoid], blend: float = 0.04, outline: float | None = None):
        self.parts, self.blend, self.outline = list(parts), blend, outline or blend
        x0, y0, x1, y1 = zip(*(part.bounds for part in self.parts), strict=True)
        self.bounds = (min(x0), min(y0), max(x1), max(y1))

    def distance(self, x: Array, y: Array) -> Array:
        return self._union([p.distance(x, y) for p in self.parts])

    def _union(self, parts: list[Array]) -> Array:
        k = 0.5 * self.outline
        total = sum(np.exp(np.minimum(d * (-1 / k), 60)) for d in parts)
        return -k * np.log(total + 1e-30)

    def surface(self, x: Array, y: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Returns the results of `Ellipsoid.surface` for the whole solid."""
        if len(self.parts) == 1:
            return self.parts[0].surface(x, y)
        found = [p.surface(x, y) for p in self.parts]
        top = found[0][1]
        for f in found[1:]:
            top = np.maximum(top, f[1])
        total = nx = ny = nz = 0.0
        for f in found:
            # A part's own rim is steep: it must not show as a seam within the union.
            w = np.exp((f[1] - top) * (1 / self.blend)) * (f[4] * f[4] + 0.02)
            total, nx, ny, nz = total + w, nx + w * f[2], ny + w * f[3], nz + w * f[4]
        size = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-9)
        distance = self._union([f[0] for f in found])
        return distance, top + self.blend * np.log(total), nx * size, ny * size, nz * size


class Plane:
    """A plane through a head-space point. Local (u, v) are lengths along it, right and down.

    Args:
        origin: head-space point of (0, 0).
        yaw, pitch: angles of the plane's normal from the face's axis, radians.
        roll: turn within the plane.
        mirror: u grows to the left.
    """

    def __init__(
        self,
        pose: Pose,
        origin: Sequence[float],
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        mirror: bool = False,
    ):
        own = rotation(yaw, pitch, roll)
        self.u, self.v, self.n = (_apply(pose.matrix, axis) for axis in zip(*own, strict=True))
        if mirror:
            self.u = (-self.u[0], -self.u[1], -self.u[2])
        self.x, self.y, self.depth = pose.point(origin)
        self.scale = pose.scale

    @property
    def facing(self) -> float:
        """Returns the cosine between the plane's normal and the viewer."""
        return self.n[2]

    def point(self, u: float, v: float) -> tuple[float, float]:
        """Returns the picture point of (u, v)."""
        k = self.scale
        return self.x + k * (u * self.u[0] + v * self.v[0]), self.y + k * (u * self.u[1] + v * self.v[1])

    def local(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Returns (u, v) of picture points."""
        (a, c, _), (b, d, _) = self.u, self.v
        k = 1 / ((a * d - b * c) * self.scale)
        dx, dy = x - self.x, y - self.y
        return (k * d) * dx - (k * b) * dy, (k * a) * dy - (k * c) * dx

    def window(self, canvas: Canvas, u0: float, v0: float, u1: float, v1: float) -> Window:
        """Returns the part of the canvas that holds a box of the plane."""
        xs, ys = zip(*(self.point(u, v) for u in (u0, u1) for v in (v0, v1)), strict=True)
        return canvas.window(min(xs), min(ys), max(xs), max(ys))
