// HailoRT with exceptions in place of its results. The worker has been compiled with the vendor's
// headers of 5.0.0, 5.0.1, 5.1.0, 5.1.1 and 5.2.0.
#pragma once

#include <hailo/hailort.hpp>

#include <cstdlib>
#include <stdexcept>
#include <string>

// A call of the library failed.
struct Failure : std::runtime_error {
    Failure(hailo_status code, const std::string &what) : std::runtime_error(what + ": " + name(code)), status(code) {}
    static std::string name(hailo_status code)
    {
        const char *text = hailo_get_status_message(code);
        return (text != nullptr ? text : "status") + (" (" + std::to_string(code) + ")");
    }
    hailo_status status;
};

inline void check(hailo_status status, const std::string &what)
{
    if (status != HAILO_SUCCESS) {
        throw Failure(status, what);
    }
}

template <typename T> T take(hailort::Expected<T> result, const std::string &what)
{
    check(result.status(), what);
    return result.release();
}

// shorten_requests makes the library wait no longer than 3 s for an answer of the chip (it reads this
// at every request), so that a silent chip is let go of in time. Not before all models are loaded:
// for a large one the library allows 45 s, which this replaces too. It is the only change this
// program makes to its environment, and for the first one the C library leaves the table that other
// threads may be reading in its place.
inline void shorten_requests()
{
    setenv("HAILO_REQUEST_TIMEOUT_SECONDS", "3", 0);
}

template <typename Version> std::string version_text(const Version &v)
{
    return std::to_string(v.major) + "." + std::to_string(v.minor) + "." + std::to_string(v.revision);
}

inline std::string runtime_version()
{
    hailo_version_t v{};
    check(hailo_get_library_version(&v), "hailo_get_library_version");
    return version_text(v);
}

// open_vdevice opens the device with this id ("" for the only one, and then says which), alone or
// with the other processes that give the same group. It names the device to the library in any
// case: then 73 means busy, where the library would otherwise say 74 for everything.
inline std::unique_ptr<hailort::VDevice> open_vdevice(std::string &id, const std::string &group)
{
    if (id.empty()) {
        const auto found = take(hailort::Device::scan(), "scan for devices");
        if (found.empty()) {
            throw Failure(HAILO_OUT_OF_PHYSICAL_DEVICES, "no Hailo device found");
        }
        if (found.size() > 1) {
            throw Failure(HAILO_INVALID_ARGUMENT, "several devices, name one: " + found[0] + ", " + found[1]);
        }
        id = found[0];
    }
    hailo_device_id_t device{};
    if (id.size() >= sizeof(device.id)) {
        throw Failure(HAILO_INVALID_ARGUMENT, "device id " + id);
    }
    id.copy(device.id, sizeof(device.id) - 1);
    hailo_vdevice_params_t params{};
    check(hailo_init_vdevice_params(&params), "hailo_init_vdevice_params");
    params.device_count = 1;
    params.device_ids = &device;
    params.scheduling_algorithm = HAILO_SCHEDULING_ALGORITHM_ROUND_ROBIN;
    if (!group.empty()) {
        params.group_id = group.c_str();
    }
    return take(hailort::VDevice::create(params), "open device " + id);
}

// identify asks the chip over the connection that the frames go over. The answer is read by the
// thread that calls back for frames, so every callback from before has returned by then.
inline hailo_device_identity_t identify(const hailort::VDevice &vdevice)
{
    const auto devices = take(vdevice.get_physical_devices(), "get_physical_devices");
    if (devices.empty()) {
        throw Failure(HAILO_INTERNAL_FAILURE, "the vdevice has no device");
    }
    return take(devices[0].get().identify(), "identify");
}

inline std::string architecture_name(hailo_device_architecture_t architecture)
{
    return architecture == HAILO_ARCH_HAILO10H ? "HAILO10H" : "architecture " + std::to_string(architecture);
}
