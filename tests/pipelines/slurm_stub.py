"""A stand-in for SLURM on one machine: ``sbatch`` runs a job at once, ``srun`` starts a process per node.

Called as ``slurm_stub.py sbatch|srun|scontrol ARGUMENTS...`` by three wrappers on PATH. Like SLURM, sbatch runs a
*copy* of the script, reads its #SBATCH lines, sets SLURM_* variables, and starts no job whose dependency failed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SPOOL = Path(os.environ.get("STUB_SPOOL", "spool"))
RECORD = "jobs.json"


def sbatch(arguments: list[str]) -> int:
    options = dict(re.findall(r"^--([a-z-]+)=(.*)$", "\n".join(arguments), re.MULTILINE))
    (script,) = (Path(word) for word in arguments if not word.startswith("--"))
    written = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", script.read_text(), re.MULTILINE))
    SPOOL.mkdir(exist_ok=True)
    jobs: list[dict[str, object]] = json.loads((SPOOL / RECORD).read_text()) if (SPOOL / RECORD).is_file() else []
    number = len(jobs) + 1
    kind, _, other = options.get("dependency", "").partition(":")
    if other and (int(other) > len(jobs) or (kind == "afterok" and jobs[int(other) - 1]["code"] != 0)):
        print(f"dependency {kind}:{other} never satisfied", file=sys.stderr)
        return 1
    copy = SPOOL / f"job{number}"
    shutil.copy(script, copy)
    nodes = written.get("nodes", "1")
    job = {"SLURM_JOB_ID": str(number), "SLURM_NNODES": nodes, "SLURM_JOB_NODELIST": f"node[0-{int(nodes) - 1}]"}
    tasks = [{}]
    array = os.environ.get("STUB_ARRAY") or options.get("array") or written.get("array")
    if "array" in {*written, *options} and array:
        first, last = (int(n) for n in array.split("-"))
        tasks = [
            {
                "SLURM_ARRAY_TASK_ID": str(i),
                "SLURM_ARRAY_TASK_MIN": str(first),
                "SLURM_ARRAY_TASK_COUNT": str(last - first + 1),
            }
            for i in range(first, last + 1)
        ]
    code = 0
    with (SPOOL / f"job{number}.out").open("w") as log:
        for task in tasks:
            environment = {**os.environ, **job, **task}
            done = subprocess.run(["bash", str(copy)], env=environment, stdout=log, stderr=log, check=False)
            code = max(code, abs(done.returncode))
    jobs.append({"script": script.name, "code": code, "dependency": options.get("dependency", "")})
    (SPOOL / RECORD).write_text(json.dumps(jobs))
    print(number if "--parsable" in arguments else f"Submitted batch job {number}")
    return 0


def srun(arguments: list[str]) -> int:
    nodes = int(os.environ["SLURM_NNODES"])
    step = {"SLURM_NTASKS": str(nodes), "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_LOCALID": "0"}
    running = [
        subprocess.Popen(arguments, env={**os.environ, **step, "SLURM_PROCID": str(i), "SLURM_NODEID": str(i)})
        for i in range(nodes)
    ]
    return max(abs(process.wait()) for process in running)


def scontrol(arguments: list[str]) -> int:
    assert arguments == ["show", "hostnames", os.environ["SLURM_JOB_NODELIST"]], arguments
    print("\n".join(["localhost"] * int(os.environ["SLURM_NNODES"])))
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
