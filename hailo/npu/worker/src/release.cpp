// Letting go of the device.
#include "worker.h"

#include <sys/mman.h>

using namespace std::chrono_literals;

// How long the chip may take to give back the frames of a model that was shut down.
constexpr auto abort_limit = 2s;

// note draws from the status of a call how the session is.
void Worker::note(hailo_status status)
{
    if (status == HAILO_COMMUNICATION_CLOSED) {
        m_session = Session::lost;
    } else if (status == HAILO_TIMEOUT) {
        m_session = Session::silent;
    }
}

uint32_t Worker::in_flight() const
{
    uint32_t n = 0;
    for (const auto &model : m_models) {
        n += model ? model->in_flight.load() : 0U;
    }
    return n;
}

// settle has the chip give back the frames that it or the library holds. Afterwards the session is alive and no
// callback runs or will, or it is not alive.
void Worker::settle()
{
    for (auto &model : m_models) {
        if (m_session == Session::alive && model && (model->in_flight > 0 || model->failed)) {
            note(model->configured.shutdown());
        }
    }
    const auto end = std::chrono::steady_clock::now() + abort_limit;
    while (m_session == Session::alive && in_flight() > 0) {
        if (std::chrono::steady_clock::now() > end) {
            m_session = Session::silent;
        }
        std::this_thread::sleep_for(1ms);
    }
    try {
        if (m_session == Session::alive) {
            (void)identify(*m_vdevice); // its answer comes after the last callback
        }
    } catch (const Failure &failure) {
        note(failure.status == HAILO_COMMUNICATION_CLOSED ? failure.status : HAILO_TIMEOUT);
    }
}

// stop lets go of the device. A model that goes before the vdevice while a callback is still to come
// is used by that callback in the library; a vdevice that goes before its models is used by them in
// the chip's own server. So: a session that is alive is settled, then the models go, then the
// vdevice. One that is lost is let go of by the vdevice, which makes every callback come; there is no
// server that could suffer. With a silent chip neither order is safe, and it would hear of neither.
void Worker::stop()
{
    limit();
    raise_event(m_stop);
    if (m_vdevice && m_session == Session::alive) {
        settle();
    }
    if (m_vdevice && m_session == Session::silent) {
        log("the device is silent: it is not told that we leave");
        _exit(exit_stuck); // closes the socket
    }
    if (m_session == Session::lost) {
        m_vdevice.reset();
    }
    while (in_flight() > 0) {
        std::this_thread::sleep_for(1ms); // the limit ends this when a callback never comes
    }
    for (auto &model : m_models) {
        model.reset();
    }
    m_vdevice.reset();
    for (auto *thread : {&m_report, &m_watch}) {
        if (thread->joinable()) {
            thread->join();
        }
    }
    if (m_memory.data != nullptr) {
        munmap(m_memory.data, m_memory.size);
    }
}
