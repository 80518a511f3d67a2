"""Parts of a message: what no provider would take is found before it is stored, and named."""

from __future__ import annotations

import base64
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_loop.contracts.errors import InputError
from power_loop.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    TextPart,
    ToolResultPart,
    content_of,
    part_problem,
)

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


@pytest.mark.parametrize(
    "part",
    [
        TextPart("x"),
        ImagePart(data="aGk="),
        ImagePart(data=PNG, detail="low"),
        ImagePart(url="https://example.com/ä.png?size=1"),
        ImagePart(url="HTTP://example.com"),
        ImagePart(url=f"data:image/png;base64,{PNG}"),
        ImagePart(url="data:image/gif;name=a.gif;base64,aGk="),
        FilePart(data="aGk="),
        FilePart(data="aGk=", media_type="application/vnd.ms-excel", filename="ä.xls"),
        FilePart(url="https://example.com/a.pdf"),
        FilePart(url="data:text/plain;charset=utf-8;base64,aGk="),
        FilePart(file_id="file-1"),
        AudioPart("aGk="),
        AudioPart("aGkhIQ==", format="mp3"),
    ],
)
def test_what_a_provider_takes_has_no_problem(part: Any) -> None:
    assert part_problem(part) is None
    assert content_of(part) == (part,)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (ImagePart(), "ImagePart is empty"),
        (ImagePart(data=""), "ImagePart.data is empty"),
        (ImagePart(data="%%%"), "ImagePart.data is '%%%', which is no base64"),
        (ImagePart(data="aGk"), "no base64"),
        (ImagePart(data="a=k="), "no base64"),
        (ImagePart(data="a==="), "no base64"),
        (ImagePart(data="aG\nk"), "no base64"),
        (ImagePart(data="aGk\xe9"), "no base64"),
        (ImagePart(data=b"aGk="), "ImagePart.data is a bytes"),  # type: ignore[arg-type]
        (ImagePart(data="aGk=", media_type="image/bmp"), "'image/bmp': providers take image/png"),
        (ImagePart(data="aGk=", media_type=None), "None: providers take"),  # type: ignore[arg-type]
        (ImagePart(data=PNG, media_type="image/jpeg"), "'image/jpeg', but its bytes are 'image/png'"),
        (ImagePart(url="ftp://x"), "ImagePart.url is 'ftp://x'"),
        (ImagePart(url="file:///etc/passwd"), "ImagePart.url"),
        (ImagePart(url="https://"), "ImagePart.url"),
        (ImagePart(url="https://x/a b"), "ImagePart.url"),
        (ImagePart(url="https://x/\ud800"), "ImagePart.url"),
        (ImagePart(url=""), "ImagePart.url"),
        (ImagePart(url=5), "ImagePart.url is 5"),  # type: ignore[arg-type]
        (ImagePart(url="data:image/png,aGk="), "begins with 'data:<media type>;base64,'"),
        (ImagePart(url="data:image/png;base64,"), "ImagePart.url is empty"),
        (ImagePart(url="data:image/svg+xml;base64,aGk="), "'image/svg+xml'"),
        (ImagePart(data="aGk=", detail="huge"), "ImagePart.detail"),
        (FilePart(), "FilePart is empty"),
        (FilePart(data=""), "FilePart.data is empty"),
        (FilePart(data="?"), "FilePart.data"),
        (FilePart(data="aGk=", media_type="pdf"), "'pdf'"),
        (FilePart(data="aGk=", media_type="application/pdf\n"), r"'application/pdf\n'"),
        (FilePart(data="aGk=", filename=" "), "FilePart.filename"),
        (FilePart(file_id=""), "FilePart.file_id"),
        (FilePart(url="C:\\a.pdf"), "FilePart.url"),
        (AudioPart(""), "AudioPart.data is empty"),
        (AudioPart("aGk=", format="ogg"), "AudioPart.format is 'ogg'"),
    ],
)
def test_what_no_provider_takes_is_refused_and_named(part: Any, named: str) -> None:
    problem = part_problem(part)
    assert problem is not None
    assert named in problem
    with pytest.raises(InputError) as caught:
        content_of(["look", part])
    assert problem in caught.value.message


def test_long_data_is_not_repeated_in_the_error() -> None:
    problem = part_problem(ImagePart(data="%" * 1_000_000))
    assert problem is not None
    assert len(problem) < 200


@given(st.binary(min_size=1, max_size=40))
def test_whatever_bytes_become_a_part_without_problems(data: bytes) -> None:
    for part in (ImagePart.from_bytes(data), FilePart.from_bytes(data)):
        assert part_problem(part) is None
        assert part.data is not None
        assert base64.b64decode(part.data) == data


@given(st.text(string.ascii_letters + "+/=-_ \n", max_size=12))
def test_data_without_a_problem_can_be_decoded_strictly(data: str) -> None:
    if part_problem(AudioPart(data)) is None:
        assert base64.b64decode(data, validate=True)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"\x89PNG\r\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (WEBP, "image/webp"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "image/png"),
        (b"?", "image/png"),
    ],
)
def test_the_type_of_an_image_is_read_from_its_bytes(data: bytes, media_type: str) -> None:
    assert ImagePart.from_bytes(data).media_type == media_type
    assert ImagePart.from_bytes(data, "image/gif").media_type == "image/gif"


def test_the_text_of_a_result_is_its_text_parts_joined() -> None:
    parts = (TextPart("a "), ImagePart(url="https://example.org/a.png"), TextPart("chart"))
    assert ToolResultPart("c1", parts).text == "a chart"
    assert ToolResultPart("c1", ()).text == ""
