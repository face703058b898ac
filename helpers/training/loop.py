"""The training loop."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from helpers.data.course import Datasets
from helpers.nets.base import ChrominanceNet
from helpers.progress import progress
from helpers.training import distributed
from helpers.training.checkpoint import Checkpointer
from helpers.training.execution import Execution, default_execution
from helpers.training.optim import Recipe
from helpers.training.signals import StopSignals
from helpers.training.state import History, TrainingState


def fit(
    net: ChrominanceNet,
    data: Datasets,
    recipe: Recipe,
    *,
    seed: int = 0,
    execution: Execution | None = None,
    checkpoint: Path | None = None,
    log: Callable[[str], None] | None = None,
    after_epoch: Callable[[dict, ChrominanceNet], None] | None = None,
    stop: StopSignals | None = None,
) -> History:
    """Train `net` in place on its device and return the history; see `TrainingState`.

    execution    how steps are computed; None: `default_execution`; kept when resumed
    checkpoint   file written after each epoch, every minute, and when stopped; the same
                 call resumes at the exact step, or returns if training is finished
    log          receives one line per epoch; after_epoch receives its metrics and the net
    stop         receives Ctrl-C, TERM and USR1; the net then has the weights so far, the
                 best ones if there is a validation set

    Under torchrun, processes share a minibatch; rank 0 writes and logs. Raises InputError
    for another run's checkpoint, TrainingDiverged if a loss or gradient is not finite.
    """
    state = TrainingState(net, data, recipe, seed, execution or default_execution(net))
    checkpoints = Checkpointer(checkpoint, state, stop := stop or StopSignals())
    execution = checkpoints.resume()
    with execution.active(net), stop, torch.random.fork_rng():
        forward = execution.compile(distributed.wrap(net))
        while not (state.is_finished() or checkpoints.should_stop()):
            net.train()
            state.keep_healthy()  # restored if the loss is not finite
            batches, aug_params = state.remaining_batches()
            for index in progress(batches, f"epoch {state.epoch}"):
                start = time.perf_counter()
                mine = distributed.my_share(index)
                torch.manual_seed(state.step_seed())  # for dropout, hints, aging
                minibatch = state.train.minibatch(mine, aug_params)
                state.optimizer.zero_grad()
                with execution.autocast(state.device):
                    y = forward(net.inputs(minibatch))
                loss = net.loss(y, minibatch)
                del y  # frees what only a second use of it would need
                distributed.weighted(loss, mine, index).backward()
                state.check_finite(loss, index)  # raises TrainingDiverged
                state.optimizer.step()
                state.scheduler.step()
                state.count_step(loss, len(mine), time.perf_counter() - start)
                if state.is_checked and checkpoints.should_stop():
                    break
            else:  # no break: the epoch is complete
                row = state.finish_epoch()
                checkpoints.save()
                if distributed.rank() == 0:
                    _report(row, recipe.num_epochs, net, log, after_epoch)
    state.load_best_weights()
    if stop.received:
        _report_stop(state, stop, checkpoint, log)
    return state.history


def _report(row: dict, num_epochs: int, net, log, after_epoch) -> None:
    if log:
        log(epoch_line(row, num_epochs))
    if after_epoch:
        after_epoch(row, net)


def _report_stop(state: TrainingState, stop: StopSignals, checkpoint, log) -> None:
    """Log where training stopped; then let TERM and USR1 take their usual effect."""
    how = "; run the same command again to continue" if checkpoint else ""
    at = f"epoch {state.epoch}, step {state.step}"
    if distributed.rank() == 0:
        (log or print)(f"stopped by {stop.received.name} at {at}{how}")
    stop.pass_on()


def epoch_line(row: dict, num_epochs: int) -> str:
    """Return an epoch's log line: epoch, errors, seconds."""
    line = f"epoch {row['epoch']:>4} of {num_epochs}  train {row['train_mse']:.3e}"
    for name in ("validation", "test"):
        if f"{name}_mse" in row:
            line += f"  {name} {row[f'{name}_mse']:.3e}"
    return f"{line}  {row['seconds']:.1f} s"
