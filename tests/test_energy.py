"""Energy is what the GPU's own sensor says, and nothing where there is none."""

from pathlib import Path

import pytest

from ft.energy import Energy, watts


def test_without_a_sensor_there_is_no_energy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    energy = Energy()
    energy.look()
    energy.look(every=0)
    assert energy.joules == 0


def test_power_over_time_is_energy_and_goes_on_after_a_pause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sensor = tmp_path / "nvidia-smi"
    sensor.write_text('#!/bin/sh\n[ "$2" = 3 ] && echo 350.00\n')
    sensor.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert watts() == 350
    energy = Energy(joules=1000)
    energy.look()
    energy._asked -= 10  # ten seconds pass
    energy.look(every=5)
    assert energy.joules == pytest.approx(4500, abs=20)
