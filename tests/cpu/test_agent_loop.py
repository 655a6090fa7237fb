"""What arrives in the actor's process: Ray sends the class by value, and grouping lives off names in verl's module."""

import inspect

import ray
from ray import cloudpickle


def test_no_method_of_the_unpickled_worker_reads_a_copy_of_the_names_that_are_replaced() -> None:
    from verl_fgrpo.cpu import agent_loop

    sent = ray.remote(agent_loop.GroupedAgentLoopWorker).__ray_metadata__.modified_class
    received = cloudpickle.loads(cloudpickle.dumps(sent))
    replaced = {"tq", "list_of_dict_to_tensordict"}
    own, host = [], []
    for name, method in inspect.getmembers(received, callable):
        function = inspect.unwrap(method)
        if replaced & set(getattr(getattr(function, "__code__", None), "co_names", ())):
            (host if function.__globals__ is vars(agent_loop.host) else own).append(name)
    assert own in ([], ["__init__"])  # __init__ sets them, through the module
    for name in ("_run_prompt", "_agent_loop_postprocess"):  # verl's functions that read them are reached by super()
        inherited = getattr(agent_loop._HostWorker, name)
        assert replaced & set(inherited.__code__.co_names)
        assert inherited.__globals__ is vars(agent_loop.host)
