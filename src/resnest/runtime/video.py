"""Frames of videos, cameras and streams, by PyAV.

    for frame in VideoFrames("clip.mp4", Every.of("0.5s")): ...    # clip.mp4[0], clip.mp4[15], ...

Frames are upright, as players show them: phones store a rotation beside the pixels. Times are those of the file,
from its start, also if its frames are not evenly spaced. A file ends at its first damage, and `problem` says where.
"""

from __future__ import annotations

import errno
import math
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from resnest.errors import ResnestError, one_line
from resnest.runtime.containers import missing_bytes
from resnest.runtime.decode import MAX_PIXELS, BadImage
from resnest.runtime.frames import Every, Frame, Picker

# Containers that are opened, by FFmpeg's names: not its playlists of local files, text as pictures, or raw pixels
FILES = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mjpeg,mpjpeg,h264,hevc,ivf,m4v"
STREAMS = f"{FILES},hls,dash,rtsp,rtp,sdp,live_flv"
FILE_PROTOCOLS = "file"  # what a file may refer to: no addresses
STREAM_PROTOCOLS = "http,https,tcp,tls,udp,rtp,rtsp,rtmp,rtmps,rtmpt,srt,crypto,data,httpproxy,hls"  # no local files
SECONDS = 15.0  # that a stream may take to open, or to give something to read
LIVE = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt")  # of others, those whose length is not known
ENDED = (errno.EIO, 0x41444E49)  # how streams of JPEG end when the server closes them: I/O error, AVERROR_INVALIDDATA
TURNS = {  # of a display matrix, signs of x from x and y, and of y from x and y (ISO 14496-12, 6.2.2)
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,  # a quarter clockwise
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


def load_av() -> Any:
    """PyAV. Raises ResnestError if it is not installed."""
    try:
        import av
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise ResnestError("videos need PyAV: pip install av") from None
    return av


class VideoFrames:
    """The wanted frames of a file, a camera or a stream.

    Raises:
        BadImage: it cannot be opened, or has no video; PyAV is not installed.
    """

    def __init__(self, where: str, every: Every) -> None:
        self.name = _shown(where)
        try:
            self.av = load_av()
        except ResnestError as error:
            raise BadImage(self.name, str(error)) from None
        self.problem = ""
        self.stopped = False
        self.picker = Picker(every)
        self.turns = Turns()
        self.missing = 0 if "://" in where or _device(where) else missing_bytes(Path(where))  # of a file that is cut
        self.container = self._open(where)
        try:
            self.stream = self._video()
        except BadImage:
            self.container.close()
            raise
        scheme = urlsplit(where).scheme.lower() if "://" in where else ""
        endless = "://" in where and not self.container.duration
        self.live = _device(where) is not None or scheme in LIVE or endless
        self.start = None if self.live or self.container.start_time is None else self.container.start_time / 1e6
        context = self.stream.codec_context
        self.size = (context.width, context.height)
        context.thread_type = "SLICE"  # threads by frames lose errors of decoders, and are late
        context.options = {"max_pixels": str(MAX_PIXELS)}

    @property
    def rate(self) -> Fraction:
        """Frames per second of the wanted ones, about."""
        every, rate = self.picker.every, self.stream.average_rate or Fraction(25)
        wanted = 1 / Fraction(every.seconds).limit_denominator(1000) if every.seconds >= 0.001 else rate / every.frames
        return min(Fraction(wanted), Fraction(rate)).limit_denominator(10_000) or Fraction(1)

    def stop(self) -> None:
        """End after the frame that is being read."""
        self.stopped = True

    def close(self) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        number, time = -1, 0.0
        for number, frame in enumerate(self._decoded()):
            if frame.width * frame.height > MAX_PIXELS:
                self.problem = f"frame {number} has {frame.width} x {frame.height} pixels"
                break
            time = self._time(frame, number)
            if self.picker.wants(number, time):
                yield Frame(f"{self.name}[{number}]", number, time, self.turns.upright(frame))
            if self.stopped:
                return
        if not self.problem and self.missing:
            self.problem = f"cut short, {self.missing} bytes are missing"
        if self.stopped:
            self.problem = ""
        elif number < 0:
            self.problem = f"no frame can be read{f' ({self.problem})' if self.problem else ''}"
        elif self.problem:
            self.problem = f"{self.problem}: ends after frame {number} ({time:.1f} s)"

    def _decoded(self) -> Iterator[Any]:
        """All frames up to the first damage; those of a live stream beyond it, too."""
        good = 0
        packets = self.container.demux(self.stream)
        while not self.stopped:
            try:
                packet = next(packets, None)
            except self.av.error.FFmpegError as error:
                if not self.live:
                    self.problem = f"damaged ({one_line(error)})"
                elif error.errno not in ENDED:
                    self.problem = f"the connection is lost ({one_line(error)})"
                packet = None
            if packet is None:
                break
            if packet.is_corrupt and not self.live:
                if not good:
                    continue  # a recording that begins in the middle
                self.problem = "damaged"
                break
            try:
                frames = packet.decode()
            except self.av.error.FFmpegError as error:
                if self.live:
                    continue
                self.problem = f"damaged ({one_line(error)})"
                break
            good += 1
            for frame in frames:
                if frame.is_corrupt and not self.live:
                    self.problem = "damaged"
                    return
                yield frame
        yield from self._rest()

    def _rest(self) -> Iterator[Any]:
        """Frames that the decoder still has: good ones from before a damage."""
        try:
            yield from (frame for frame in self.stream.decode(None) if not frame.is_corrupt)
        except self.av.error.FFmpegError:
            return

    def _time(self, frame: Any, number: int) -> float:
        """Seconds from the start."""
        if frame.time is None or math.isnan(frame.time):
            return float(number / (self.stream.average_rate or 25))
        if self.start is None:
            self.start = frame.time
        return float(frame.time - self.start)

    def _open(self, where: str) -> Any:
        device, remote = _device(where), "://" in where
        protocols, formats = (STREAM_PROTOCOLS, STREAMS) if remote else (FILE_PROTOCOLS, FILES)
        options = {"protocol_whitelist": protocols, "format_whitelist": formats}
        try:
            if device is not None:
                return self.av.open(device[1], format=device[0], timeout=(SECONDS, SECONDS))
            if remote:
                if where.lower().startswith("rtsp"):
                    options["rtsp_transport"] = "tcp"  # without the losses of UDP
                return self.av.open(where, options=options, timeout=(SECONDS, SECONDS))
            return self.av.open(f"file:{where}", options=options)
        except (self.av.error.InvalidDataError, self.av.error.ArgumentError):  # of these, the second: not in FILES
            if "://" not in where and not Path(where).stat().st_size:
                raise BadImage(self.name, "empty file") from None
            cut = f"cut short, {self.missing} bytes are missing"
            reason = f"no frame can be read: {cut}" if self.missing else "no video: of another format, or damaged"
        except self.av.error.ExitError:
            reason = f"no answer in {SECONDS:g} seconds"
        except (self.av.error.FFmpegError, OSError, ValueError) as error:
            reason = f"cannot be read ({one_line(getattr(error, 'strerror', None) or error)})"
        raise BadImage(self.name, reason)

    def _video(self) -> Any:
        """The stream of frames; covers of music are none. Raises BadImage."""
        cover = self.av.stream.Disposition.attached_pic
        videos = [stream for stream in self.container.streams.video if not stream.disposition & cover]
        if not videos:
            what = "sound alone" if self.container.streams.audio else "no frames"
            raise BadImage(self.name, f"no video: it has {what}")
        best = self.container.streams.best("video")
        stream = best if best in videos else videos[0]
        context = stream.codec_context
        if context is None:
            raise BadImage(self.name, "a kind of video that PyAV does not decode")
        if context.width * context.height > MAX_PIXELS:
            most = f"at most {MAX_PIXELS / 1e6:.0f} megapixels"
            raise BadImage(self.name, f"too many pixels ({context.width} x {context.height}, {most})")
        return stream


class Turns:
    """Makes frames upright.

    A frame whose `side_data` was looked at refers to itself, and hundreds of them would fill the memory before Python
    finds out. So the display matrix is read of the first frame, and where the rotation, which is free, changes.
    """

    def __init__(self) -> None:
        self.rotation: int | None = None  # degrees, of the matrix that was read last
        self.turn: Image.Transpose | None = None

    def upright(self, frame: Any) -> Image.Image:
        """The frame as players show it, in RGB."""
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
        if frame.rotation != self.rotation:
            self.rotation, self.turn = frame.rotation, _turn(frame)
        return image if self.turn is None else image.transpose(self.turn)


def _turn(frame: Any) -> Image.Transpose | None:
    matrix = next((bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), b"")
    if len(matrix) < 36:
        return None
    values = np.sign(np.round(np.frombuffer(matrix, np.int32, 9).reshape(3, 3)[:2, :2] / 65536)).astype(int)
    return TURNS.get(tuple(values.flatten().tolist()))


def _shown(where: str) -> str:
    """An address without password and query, which may be secret."""
    if "://" not in where:
        return where
    parts = urlsplit(where)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _device(where: str) -> tuple[str, str] | None:
    """FFmpeg's format and name of a camera, by the system."""
    number = re.fullmatch(r"camera:(\d+)|/dev/video(\d+)", where, re.IGNORECASE)
    if number is None:
        return None
    index = number[1] or number[2]
    if sys.platform == "darwin":
        return "avfoundation", index
    if sys.platform == "win32":
        return "vfwcap", index
    return "v4l2", str(Path(f"/dev/video{index}"))
