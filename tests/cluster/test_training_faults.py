"""A training over several machines that are killed, cut off, or lose the storage: the losses are those of one machine."""

import time

from support.commands import run_raymill
from support.fault_scene import STEPS
from support.training_watch import assert_same_steps, last_step, wait_for_step, wait_for_steps


def test_storage_that_vanishes_a_short_partition_and_a_killed_machine(scene):
    """DDP on three machines: nothing is lost or done twice."""
    command, storage = scene.train("ddp", workers=3), scene.storage("ddp")
    try:
        wait_for_steps(command, storage, workers=3, steps=6)
        before = last_step(storage)
        for machine in scene.ray.machines.values():  # an empty folder, as where a share is not mounted
            assert machine.run("mount", "-t", "tmpfs", "none", storage).code == 0
        time.sleep(10)
        for machine in scene.ray.machines.values():
            # Nothing was written where the storage is not.
            assert [line for line in machine.run("find", storage).stdout.splitlines() if line][1:] == []
            assert machine.run("umount", storage).code == 0
        began = time.monotonic()
        wait_for_step(command, storage, after=before)
        scene.report("storage away for 10 s: seconds until the next step is logged", time.monotonic() - began)
        assert last_step(storage) > before + 4, "the training has waited for the storage"

        before = last_step(storage)
        scene.ray["m3"].link_down()
        time.sleep(20)
        assert last_step(storage) <= before + 2
        scene.ray["m3"].link_up()
        began = time.monotonic()
        wait_for_step(command, storage, after=before + 2)
        scene.report("partition of 20 s: seconds until the next step", time.monotonic() - began)

        before = last_step(storage)
        scene.ray["m4"].kill()
        began = time.monotonic()
        scene.ray.restart("m4")
        scene.report("machine killed: seconds until it is up again", time.monotonic() - began)
        wait_for_step(command, storage, after=before + 1)
        scene.report("machine killed: seconds until the first new step", time.monotonic() - began)
        scene.end_well(command, "ddp")
    finally:
        command.terminate()


def test_a_partition_for_good_then_too_few_machines(scene):
    """FSDP on two or three machines: goes on with two, takes a third again, and stops with a sentence with one."""
    command = scene.train("fsdp", workers=[2, 3], strategy="fsdp", wait_for_machines_s=15)
    storage = scene.storage("fsdp")
    try:
        wait_for_steps(command, storage, workers=3, steps=6)
        scene.ray["m3"].link_down()
        began = time.monotonic()
        wait_for_steps(command, storage, workers=2, steps=2)
        scene.report("partition for good: seconds until two steps with fewer machines", time.monotonic() - began)
        scene.ray["m3"].kill()
        scene.ray["m3"].link_up()
        scene.ray.restart("m3")
        began = time.monotonic()
        wait_for_steps(command, storage, workers=3, steps=2)
        scene.report("machine added: seconds until two steps with it", time.monotonic() - began)
        scene.ray["m3"].kill()
        scene.ray["m4"].kill()
        began = time.monotonic()
        assert command.process.wait(240) == 2, command.output
        scene.report("too few machines for 15 s: seconds until the command ends", time.monotonic() - began)
        assert "for 15 s it had room for 1 of 2 processes with 1 CPU each" in command.output
        assert "cluster.wait_for_machines_s" in command.output
        assert "waiting for machines" in command.output
        assert "Traceback" not in command.output
    finally:
        command.terminate()
    # The rest, on one machine.
    scene.loss.hurry()
    (run,) = storage.glob("runs/*")
    arguments = ["train", "--resume", run, "--set", "cluster.workers=1", "--set", "cluster.address=null"]
    done = run_raymill(*arguments, PYTHONPATH=scene.python_path)
    assert done.code == 0, done
    assert_same_steps(storage, scene.alone)


def test_a_single_worker_that_is_cut_off_does_not_write_beside_its_replacement(scene):
    """Its machine still reaches the storage, and Ray's daemon there does not end the worker."""
    command, storage = scene.train("single", workers=1), scene.storage("single")
    try:
        wait_for_steps(command, storage, workers=1, steps=6)
        (name,) = scene.machines_with("ray::SingleWorker")
        (old,) = scene.ray.running[name].processes("ray::SingleWorker")
        scene.ray[name].link_down()
        began = time.monotonic()
        (run,) = storage.glob("runs/*")
        first = (run / "writer").read_text()
        command.wait_until(lambda: (run / "writer").read_text() != first, "a replacement")
        scene.report("single worker cut off: seconds until its replacement starts", time.monotonic() - began)
        # From here on both would take the same steps.
        before = last_step(storage)
        assert before < STEPS - 20, "the worker that was cut off has done all steps before it was replaced"
        wait_for_step(command, storage, after=before + 4)
        scene.end_well(command, "single")
        assert "the worker died and is replaced" in command.output
        began = old.cpu_times().user
        time.sleep(1)
        assert old.cpu_times().user < began + 0.5, "the worker that was cut off still trains"
    finally:
        command.terminate()
