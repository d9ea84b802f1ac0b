"""The interfaces: what provides them, and that they are Twisted's, as far as they go."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import make_reactor, spawn_and_finish
from twisted.internet import interfaces as twisted_interfaces

from procreactor.internet import interfaces
from procreactor.internet.endpoints import ProcessEndpoint
from procreactor.internet.epollreactor import EPollReactor
from procreactor.internet.interfaces import InterfaceClass
from procreactor.internet.process import Process, PTYProcess
from procreactor.internet.protocol import Factory, ProcessProtocol, Protocol
from procreactor.internet.task import Clock

NAMES = sorted(set(interfaces.__all__) - {"Interface", "InterfaceClass"})
ALL: list[InterfaceClass] = [getattr(interfaces, name) for name in NAMES]
WITH_MEMBERS = [one for one in ALL if one._members()]

LEFT_OUT = {
    "IReactorCore": {"resolve"},
    "IReactorTCP": {"connectTCP"},
    "IReactorThreads": {"getThreadPool"},
}


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    with make_reactor() as one:
        yield one


class Thing:
    """An object without members."""


def thing_with(members: dict[str, object]) -> Thing:
    """Return an object that has something for each of *members*: a method, or else an int."""
    thing = Thing()
    for name, member in members.items():
        vars(thing)[name] = print if inspect.isfunction(member) else 1
    return thing


# What providedBy says


@given(st.sampled_from(WITH_MEMBERS))
def test_an_object_with_all_members_provides_an_interface(interface: InterfaceClass) -> None:
    assert interface.providedBy(thing_with(interface._members()))


@given(st.sampled_from(WITH_MEMBERS), st.data())
def test_an_object_that_lacks_any_one_member_does_not(
    interface: InterfaceClass, data: st.DataObject
) -> None:
    thing = thing_with(interface._members())
    delattr(thing, data.draw(st.sampled_from(sorted(vars(thing)))))
    assert not interface.providedBy(thing)


def test_a_method_must_be_callable() -> None:
    thing = thing_with(interfaces.IConsumer._members())
    vars(thing)["write"] = b"no method"
    assert not interfaces.IConsumer.providedBy(thing)


def test_an_attribute_need_not_be_set_to_anything() -> None:
    thing = thing_with(interfaces.IProcessTransport._members())
    vars(thing)["pid"] = None
    assert interfaces.IProcessTransport.providedBy(thing)


def test_members_of_the_interfaces_above_count() -> None:
    thing = thing_with(interfaces.IReadDescriptor._members())
    assert interfaces.IFileDescriptor.providedBy(thing)
    del vars(thing)["logPrefix"]
    assert not interfaces.IReadDescriptor.providedBy(thing)


def test_members_may_come_from_getattr() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> object:
            return print

    assert interfaces.IReactorProcess.providedBy(Proxy())


def test_not_everything_is_an_address() -> None:
    class Somewhere(interfaces.IAddress):
        pass

    assert interfaces.IAddress.providedBy(Somewhere())
    assert not interfaces.IAddress.providedBy(Thing())


def test_an_object_of_a_derived_class_provides_the_interface() -> None:
    class Producer(interfaces.IPullProducer):
        def resumeProducing(self) -> None:
            pass

        def stopProducing(self) -> None:
            pass

    assert interfaces.IPullProducer.providedBy(Producer())
    assert interfaces.IProducer.providedBy(Producer())
    assert not interfaces.IPushProducer.providedBy(Producer())


def test_providedBy_is_no_member_that_objects_need_or_get() -> None:
    class Somewhere(interfaces.IAddress):
        pass

    assert not hasattr(Somewhere(), "providedBy")
    assert all("providedBy" not in interface._members() for interface in ALL)


@pytest.mark.parametrize("interface", ALL, ids=NAMES)
def test_an_interface_cannot_be_called(interface: Any) -> None:
    with pytest.raises(TypeError):
        interface(Thing(), None)


# Who provides what. The annotations are tests too: of the type checker.


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("IReactor")])
def test_the_reactor_provides_what_reactors_provide(name: str, reactor: EPollReactor) -> None:
    assert getattr(interfaces, name).providedBy(reactor)


def test_the_reactor_has_the_types_of_its_interfaces(reactor: EPollReactor) -> None:
    process: interfaces.IReactorProcess = reactor
    time: interfaces.IReactorTime = reactor
    core: interfaces.IReactorCore = reactor
    threads: interfaces.IReactorThreads = reactor
    fds: interfaces.IReactorFDSet = reactor
    tcp: interfaces.IReactorTCP = reactor
    assert all(one is reactor for one in (process, time, core, threads, fds, tcp))


def test_the_reactor_is_no_transport(reactor: EPollReactor) -> None:
    assert not interfaces.ITransport.providedBy(reactor)
    assert not interfaces.IProcessTransport.providedBy(reactor)


def test_a_child_on_pipes_is_a_process_transport_and_a_consumer(reactor: EPollReactor) -> None:
    protocol = spawn_and_finish(reactor, "/bin/true")
    assert isinstance(protocol.transport, Process)
    transport: interfaces.IProcessTransport = protocol.transport
    consumer: interfaces.IConsumer = protocol.transport
    assert interfaces.IProcessTransport.providedBy(transport)
    assert interfaces.IConsumer.providedBy(consumer)
    assert not interfaces.IPushProducer.providedBy(transport)


def test_a_child_on_a_terminal_is_a_push_producer_too(reactor: EPollReactor) -> None:
    protocol = spawn_and_finish(reactor, "/bin/true", usePTY=True)
    assert isinstance(protocol.transport, PTYProcess)
    transport: interfaces.IProcessTransport = protocol.transport
    producer: interfaces.IPushProducer = protocol.transport
    assert interfaces.IProcessTransport.providedBy(transport)
    assert interfaces.IPushProducer.providedBy(producer)


def test_protocols_and_factories_provide_theirs() -> None:
    of_process: interfaces.IProcessProtocol = ProcessProtocol()
    of_stream: interfaces.IProtocol = Protocol()
    factory: interfaces.IProtocolFactory = Factory()
    assert interfaces.IProcessProtocol.providedBy(of_process)
    assert interfaces.IProtocol.providedBy(of_stream)
    assert interfaces.ILoggingContext.providedBy(of_stream)
    assert interfaces.IProtocolFactory.providedBy(factory)
    assert not interfaces.IProtocol.providedBy(of_process)
    assert not interfaces.IProcessProtocol.providedBy(of_stream)


def test_a_clock_provides_time_and_its_calls_are_delayed_calls() -> None:
    clock: interfaces.IReactorTime = Clock()
    call: interfaces.IDelayedCall = clock.callLater(1, print)
    assert interfaces.IReactorTime.providedBy(clock)
    assert interfaces.IDelayedCall.providedBy(call)
    assert not interfaces.IReactorCore.providedBy(clock)


def test_a_listening_port_is_one(reactor: EPollReactor) -> None:
    port: interfaces.IListeningPort = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    assert interfaces.IListeningPort.providedBy(port)


def test_a_process_endpoint_is_a_client_endpoint(reactor: EPollReactor) -> None:
    endpoint: interfaces.IStreamClientEndpoint = ProcessEndpoint(reactor, "/bin/true")
    assert interfaces.IStreamClientEndpoint.providedBy(endpoint)


# They are Twisted's


@pytest.mark.parametrize("name", NAMES)
def test_an_interface_has_the_members_of_twisteds(name: str) -> None:
    ours = set(getattr(interfaces, name)._members())
    theirs = set(getattr(twisted_interfaces, name).names(all=True))
    assert ours == theirs - LEFT_OUT.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_an_interface_derives_from_what_twisteds_does(name: str) -> None:
    above = {base.__name__ for base in getattr(interfaces, name).__mro__}
    theirs = {base.__name__ for base in getattr(twisted_interfaces, name).__iro__}
    assert above & {*NAMES} == theirs & {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_what_users_call_by_keyword_has_twisteds_names(name: str) -> None:
    theirs = getattr(twisted_interfaces, name)
    for member, function in getattr(interfaces, name)._members().items():
        if not inspect.isfunction(function):
            continue
        parameters = list(inspect.signature(function).parameters.values())[1:]
        named = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        positional = theirs[member].getSignatureInfo()["positional"]
        assert named in ([], list(positional)), member


@pytest.mark.parametrize("interface", ALL, ids=NAMES)
def test_every_interface_and_member_says_what_it_is(interface: Any) -> None:
    assert inspect.getdoc(interface)
    assert all(inspect.getdoc(member) for member in interface._members().values())
