"""Tables, decoded predictions and films of the report."""

from __future__ import annotations

import base64
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.section import Section, Table
from worldmodel.analysis.report.sections.imagination import imagination
from worldmodel.analysis.report.sections.video import beside, latent_tiles, painter, record, stacked, video
from worldmodel.analysis.report.symbol_decoder import decode, fit_decoder, right


def test_a_notebook_shows_tables_and_figures(capsys: pytest.CaptureFixture):
    pytest.importorskip("IPython")
    table = Table("What it says.", ["", "value"], [["a", 0.5], ["b", None]])
    assert table._repr_markdown_() == "What it says.\n\n|  | value |\n|---|---|\n| a | 0.500 |\n| b | – |"
    Section("Title", {}, [table])._ipython_display_()
    shown = capsys.readouterr().out
    assert "Markdown" in shown and "Table" in shown


def test_decoder_gives_back_what_the_latent_holds():
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(0, n, (500, 4), generator=generator) for n in (3, 2)], -1)
    hot = torch.cat([torch.nn.functional.one_hot(codes[..., 0], 3).flatten(1), codes[..., 1]], 1).float()
    y = hot @ torch.randn(16, 16, generator=generator)
    decoder = fit_decoder(y[:400], codes[:400], (3, 2))
    assert decode(decoder, y[400:], (3, 2)).equal(codes[400:])
    other = codes[400:].clone()
    other[:, 0, 1] = 1 - other[:, 0, 1]  # one component of one cell of four
    np.testing.assert_allclose(right(other, codes[400:]), 0.75)


def test_imagination_is_shown_as_a_strip_and_as_a_film(context: EvaluationContext, tmp_path: Path):
    section = imagination(context, horizons=[1, 2])
    assert len(section.figures) == len(section.films) == 1
    (tmp_path / "film.mp4").write_bytes(base64.b64decode(section.films[0].mp4))
    pictures = iio.imread(tmp_path / "film.mp4").astype(int)
    assert len(pictures) == 3 and pictures.shape[1:] == (16 * 15, 16 * 7, 3), (
        "the start and two steps, 7 x 7 cells each"
    )
    assert np.abs(pictures[0, :112] - pictures[0, 128:]).mean() < 4, "at the start both are what was seen"


def test_film(context: EvaluationContext):
    draw, shown = painter(context)
    frames, tiles, rew_int = record(context, "gymnasium", draw)
    assert "view" in shown and len(tiles) == len(frames) and tiles[0].shape == (2, 7, 7, 3)
    assert len(frames) == len(rew_int) >= 2 and frames[0].dtype == np.uint8 and frames[0].shape[2] == 3
    assert len(frames) <= 2 * 6  # two episodes of 6 steps at most, without the steps that reset
    assert len(context.agent.reward_normalizer.sum) == context.num_envs  # as before the film
    assert context.episode_set("sampled") is context.episode_set("sampled")


def test_what_came_stands_above_what_was_predicted():
    mean, error = torch.tensor([[[0.0, 3.0, -3.0]]]), torch.tensor([[[0.0, -3.0, 0.0]]])
    came, predicted = latent_tiles(error, mean)[0, 0].astype(int)
    assert came.shape == (2, 2, 3) and (came[0, 1] == came[0, 0]).all()  # 3 was predicted, 0 came
    assert predicted[0, 1, 0] > predicted[0, 1, 2] and predicted[1, 0, 2] > predicted[1, 0, 0]  # red and blue
    shown = stacked(np.zeros((24, 10, 3), np.uint8), *(np.full((2, 2, 3), n, np.uint8) for n in (1, 2)))
    assert shown.shape == (24, 26, 3)
    assert (shown[2:10, 14:22] == 1).all() and (shown[14:22, 14:22] == 2).all() and (shown[:, :10] == 0).all()


def test_strip_beside_the_picture():
    frame = np.zeros((51, 30, 3), np.uint8)
    shown = beside(frame, np.array([0.0, 2.0, 1.0]), 2.0)
    assert shown.shape == (51, 230, 3) and (shown[:, :30] == 0).all()
    bars = (shown[:, 30:] != 255).any(-1).sum(0)  # pixels of each column that are painted
    assert bars[-6:].tolist() == [1, 1, 51, 51, 26, 26] and not bars[:-6].any()


def test_no_film_is_no_reason_to_fail(context: EvaluationContext, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no screen\nat all")

    monkeypatch.setattr("worldmodel.analysis.video.build_env", refuse)
    section = video(context)
    assert section.numbers == {"steps": 0, "reason": "OSError: no screen; OSError: no screen"} and not section.films
