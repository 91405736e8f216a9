// hailo-clip-npu holds the Hailo-10H for hailo-clip: it opens the device, loads the models and runs
// the frames that the host has put into shared memory. The protocol is in ../../doc.go.
//
// Three threads besides the library's own: main reads the socket and makes every call about the
// vdevice and its models; one asks for statistics; one sees the host die while main is inside a call.
// Completions come on the library's only reader thread, where no call of the library can end, so
// they only count and send.

#pragma once

#include "channel.h"
#include "model.h"
#include "process.h"

#include <array>
#include <thread>

// A Session is how the connection with the chip is: it answers, has ended (status 62), or is silent.
enum class Session { alive, lost, silent };

class Worker {
public:
    Worker() : m_wake(make_event()), m_stop(make_event()) {}
    ~Worker() { stop(); }
    Worker(const Worker &) = delete;
    Worker(Worker &&) = delete;
    Worker &operator=(const Worker &) = delete;
    Worker &operator=(Worker &&) = delete;

    // run serves the host until it closes its end. It throws Violation, Failure or another
    // exception when it cannot go on.
    void run();

private:
    void loop();
    bool receive();
    void open();
    void map(uint64_t size);
    void load(const protocol::Load &load);
    void submit(const protocol::Submit &submit);
    void finish(Model &model, const protocol::Submit &submit, hailo_status status);
    void report(const std::string &device_id);
    void watch() const;
    void note(hailo_status status);
    uint32_t in_flight() const;
    void settle();
    void stop();

    Packet m_packet{};
    Memory m_memory;
    std::unique_ptr<hailort::VDevice> m_vdevice;
    std::array<std::unique_ptr<Model>, protocol::models> m_models;
    int m_wake, m_stop; // events: main must look after the session, the other threads must end
    std::atomic<Session> m_session{Session::alive};
    std::atomic<uint64_t> m_frames{0};
    bool m_submitted = false;
    std::thread m_report, m_watch;
};

