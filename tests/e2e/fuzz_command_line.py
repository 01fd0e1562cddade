"""A fuzzer over the whole command line: random YAML, options, environments, damaged files, signals.

    python tests/e2e/fuzz_command_line.py --seconds 600 --seed 1

Each case follows from its number and the seed; `--case N` shows one again. What must hold of every case, whatever was
given: the exit code is 0, 1, 2, or that of the signal that was sent, never 70; no traceback; a code of 1 or 2 comes
with an `error:` line, one for each mistake in a file (a failed check may tell its findings on stdout instead).
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
LIMIT_S = 25.0
"""A case that runs longer is interrupted, which must end it like any Ctrl-C."""

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
ODD = [
    *("", " ", "null", "~", "-1", "0", "1e309", ".nan", "1_000", "0x10", "yes", "true", "-0.5", "1.5", "9" * 20),
    *("[]", "{}", "[1, 2", "{a: 1}", "'", '"', "*a", "&a b", "!!python/object:os.system x", "!!binary aGk=", "a: b"),
    *("é", "µLM", "🙂", "\x07", "%", "../..", "/", "/dev/null", "x" * 300, "- x", "gpu", "cuda", "http://["),
    *("echo-v0", "nope-v0", "numbers-v0"),
]
ENVIRONMENTS: list[dict[str, str | None]] = [
    {"HOME": None},
    {"HOME": "/nowhere"},
    {"TERM": "dumb"},
    {"COLUMNS": "0"},
    {"COLUMNS": "-7", "LINES": "x"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    {"FORCE_COLOR": "1"},
    {"NO_COLOR": "1"},
    {"TMPDIR": "/nowhere"},
    {"RAY_ADDRESS": "127.0.0.1:1"},
    {"HTTP_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "::"},
    {"PATH": ""},
    {"PYTHONWARNINGS": "default"},
    {"XDG_CACHE_HOME": "/proc/nowhere", "HF_HOME": "/proc/nowhere"},
]
FILES = ["smoke", "graph", "puzzle", "game24", "vault"]
TRAININGS = ["train_puzzle_agent", "train_numbers_agent"]
COMMANDS: dict[str, list[str]] = {
    "run": ["--set", "--seed", "--out", "--live", "--no-live", "--approve"],
    "resume": ["--live", "--no-live", "--approve"],
    "watch": ["--once"],
    "replay": ["--check", "--prompts", "--from", "--speed"],
    "report": ["--out"],
    "steer": ["--to", "--hint"],
    "compare": ["--set", "--arm", "--seed", "--out"],
    "baseline": ["--set", "--seed", "--out"],
    "train": ["--set", "--workers", "--out"],
    "export": ["--to", "--format", "--out"],
    "lab": ["--set", "--out"],
    "mqar": ["--set", "--out"],
    "eval": ["--set", "--out"],
    "worlds": ["--check", "--set"],
    "settings": ["--schema", "--page"],
    "doctor": ["--ray"],
    "check": ["--set"],
    "models": ["fetch", "list"],
    "memory": ["show"],
    "data": ["exact-match"],
    "new": ["world"],
}


@dataclass
class Case:
    """One call of the command line and what may come of it."""

    kind: str
    args: list[str]
    env: dict[str, str | None] = field(default_factory=dict)
    closed: tuple[int, ...] = ()
    send: signal.Signals | None = None
    after_s: float = 0.0


class Fuzzer:
    """Makes and checks cases in a folder of its own."""

    def __init__(self, seed: int, place: Path) -> None:
        self.seed = seed
        self.place = place
        self.run = place / "finished"
        made = self.call(Case("setup", ["run", str(EXPERIMENTS / "smoke.yaml"), "--no-live", "--out", str(self.run)]))
        if made.returncode:
            raise SystemExit(f"the run to damage cannot be made: {made.stderr.decode()}")

    def call(self, case: Case) -> subprocess.CompletedProcess[bytes]:
        """Carry a case out; its exit code is that of the process."""
        env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        for name, value in case.env.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        folder = self.place / "cwd"
        folder.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "swarm.cli", *case.args],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: [os.close(fd) for fd in case.closed] and None,
        )
        sent = case.send
        try:
            out, err = process.communicate(timeout=case.after_s if sent else LIMIT_S)
        except subprocess.TimeoutExpired:
            sent = sent or signal.SIGINT
            process.send_signal(sent)
            case.send = sent
            try:
                out, err = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
                err += b"\nHANGS after the signal"
        return subprocess.CompletedProcess(case.args, process.returncode, out, err)

    def case(self, number: int) -> Case:
        """Return a case by its number."""
        rng = random.Random(f"{self.seed}:{number}")
        make = rng.choice(
            [self._yaml, self._yaml, self._options, self._options, self._damage, self._damage, self._signal]
        )
        case: Case = make(rng)
        if rng.random() < 0.35:
            case.env = rng.choice(ENVIRONMENTS)
        if rng.random() < 0.06:
            case.closed = rng.choice([(0,), (1,), (2,), (1, 2), (0, 1, 2)])
        return case

    def _fresh(self, name: str) -> Path:
        path = self.place / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return path

    def _yaml(self, rng: random.Random) -> Case:
        """A YAML file with a few lines, values or bytes changed."""
        is_training = rng.random() < 0.15
        source = EXPERIMENTS / f"{rng.choice(TRAININGS if is_training else FILES)}.yaml"
        lines = source.read_text().replace("policies/", f"{EXPERIMENTS}/policies/").splitlines()
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(lines))
            match rng.randrange(6):
                case 0:
                    del lines[at]
                case 1:
                    lines.insert(at, lines[rng.randrange(len(lines))])
                case 2:
                    lines.insert(at, f"{' ' * rng.randrange(4)}{rng.choice(ODD)}: {rng.choice(ODD)}")
                case 3:
                    lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
                case _:
                    lines[at] = re.sub(r":.*", lambda _: f": {rng.choice(ODD)}", lines[at], count=1)
            lines = lines or [""]
        data = bytearray("\n".join(lines).encode())
        if data and rng.random() < 0.2:
            data[rng.randrange(len(data))] = rng.randrange(256)
        file = self._fresh("mutated.yaml")
        file.write_bytes(bytes(data))
        out = ["--out", str(self._fresh("out"))]
        if is_training:
            return Case("yaml", ["train", str(file), "--set", "steps=2", *out])
        command = rng.choice(["run", "run", "run", "check", "baseline", "compare"])
        if command == "check":
            return Case("yaml", ["check", str(file)])
        small = ["--set", "runtime.pool=local", "--set", "episodes=1", "--set", "budget.ticks=4"]
        return Case("yaml", [command, str(file), *small, *(["--no-live"] if command == "run" else []), *out])

    def _options(self, rng: random.Random) -> Case:
        """Options and arguments in any order, with any values."""
        command = rng.choice(list(COMMANDS))
        some = [
            *COMMANDS[command],
            "--nope",
            "-h",
            "--",
            *ODD,
            str(self.run),
            str(EXPERIMENTS / "smoke.yaml"),
            "smoke",
            "puzle",
        ]
        args = [rng.choice(some) for _ in range(rng.randint(0, 4))]
        return Case("options", [command, *(a.replace("\x00", "") for a in args)])

    def _damage(self, rng: random.Random) -> Case:
        """A run folder in which a byte was changed, a file cut, removed or replaced."""
        run = self._fresh("damaged")
        shutil.copytree(self.run, run)
        file = rng.choice(sorted(p for p in run.rglob("*") if p.is_file()))
        data = bytearray(file.read_bytes())
        match rng.randrange(5):
            case 0:
                file.unlink()
            case 1:
                file.write_bytes(bytes(data[: rng.randrange(len(data) + 1)]))
            case 2:
                file.write_bytes(bytes(data).replace(b"\n", b"\r\n"))
            case 3:
                file.write_bytes(rng.randbytes(rng.randrange(200)))
            case _:
                if data:
                    data[rng.randrange(len(data))] = rng.randrange(256)
                file.write_bytes(bytes(data))
        ways = [
            ["resume", str(run), "--no-live"],
            ["replay", str(run)],
            ["replay", str(run), "--check"],
            ["replay", str(run), "--prompts"],
            ["report", str(run)],
            ["memory", "show", str(run), "a0"],
            ["steer", str(run), "go"],
        ]
        return Case("damage", rng.choice(ways))

    def _signal(self, rng: random.Random) -> Case:
        """A run that is told to end at some time."""
        file = EXPERIMENTS / f"{rng.choice(FILES)}.yaml"
        long = ["--set", "episodes=500", "--set", f"runtime.pool={rng.choice(['local', 'local', 'ray'])}"]
        args = ["run", str(file), "--no-live", "--out", str(self._fresh("out")), *long]
        return Case("signal", args, send=rng.choice(list(SIGNALS)), after_s=rng.uniform(0.05, 9))

    def fault(self, case: Case, done: subprocess.CompletedProcess[bytes]) -> str | None:
        """Return what must not be about how a case ended."""
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        code = done.returncode
        allowed = {0, 1, 2} | ({SIGNALS[case.send]} if case.send else set())
        if case.send and case.after_s < 1.0:
            allowed.add(-case.send)  # the interpreter was not up yet
        if code not in allowed:
            return f"exit code {code}"
        if "Traceback (most recent call last)" in err + out:
            return "a traceback"
        if "HANGS" in err:
            return "hangs after the signal"
        if "this is a bug" in err:
            return "a bug"
        tells_findings = (code == 1 and case.args[:1] in (["worlds"], ["doctor"])) or "Usage: " in out + err
        errors = len(re.findall(r"(?m)^error: ", err))
        is_told = errors == 1 or (errors > 1 and case.kind == "yaml")
        if code in (1, 2) and 2 not in case.closed and not is_told and not tells_findings:
            return f"{errors} `error:` lines"
        return None


def main() -> None:
    """Fuzz for some time, then print the counts; exit 1 after a fault."""
    parser = argparse.ArgumentParser(description="fuzz the swarm command line")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="carry out this case alone and show it")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(options.seed, Path(folder))
        began_s, number, faults = time.monotonic(), options.case or 0, 0
        while time.monotonic() - began_s < options.seconds:
            case = fuzzer.case(number)
            done = fuzzer.call(case)
            counts[f"{case.kind}: exit {done.returncode}"] += 1
            why = fuzzer.fault(case, done)
            if why or options.case is not None:
                faults += why is not None
                shown = done.stderr.decode(errors="replace")[-1500:]
                print(f"--- case {number}: {why}\n{case}\nexit {done.returncode}\n{shown}", flush=True)
            if options.case is not None:
                break
            number += 1
    print(f"{number} cases, {faults} faults, seed {options.seed}")
    for key, count in sorted(counts.items()):
        print(f"  {key}: {count}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
