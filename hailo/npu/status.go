package npu

import "fmt"

// Code is a hailo_status of the vendor's runtime, by number.
type Code int32

// Codes that this program uses.
const (
	Success                Code = 0
	CodeInsufficientBuffer Code = 5
	CodeStreamAbort        Code = 63
	CodeDeviceInUse        Code = 73
	CodeNoDevice           Code = 74
	CodeDriverVersion      Code = 76
	CodeQueueFull          Code = 82

	codeDriverFailed  Code = 36
	codeClosed        Code = 62
	codeDriverTimeout Code = 87
	codeRefused       Code = 89
	codeNotConnected  Code = 96
)

// deviceLost says whether the code means that nothing more can come from this session of the
// runtime, so that the worker must be replaced.
func (c Code) deviceLost() bool {
	switch c {
	case codeDriverFailed, codeClosed, codeDriverTimeout, codeRefused, codeNotConnected:
		return true
	}
	return false
}

// DeviceError says that the device could not be opened or a model not be loaded.
type DeviceError struct {
	Doing string // "open the device", "load PATH"
	Code  Code
	Text  string // what the worker says about it; may be ""
}

func (e *DeviceError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("cannot %s: %v", e.Doing, e.Code)
	}
	return fmt.Sprintf("cannot %s: %v: %s", e.Doing, e.Code, e.Text)
}

// String is the vendor's name of the code and its number: "HAILO_TIMEOUT (4)".
func (c Code) String() string {
	if c >= 0 && int(c) < len(codeNames) {
		return fmt.Sprintf("HAILO_%s (%d)", codeNames[c], c)
	}
	return fmt.Sprintf("status %d", int32(c))
}

// codeNames are the names in hailo/hailort.h of HailoRT 5.2. From 5.3 on 81 is called
// RESOURCE_EXHAUSTED.
var codeNames = [...]string{
	"SUCCESS", "UNINITIALIZED", "INVALID_ARGUMENT", "OUT_OF_HOST_MEMORY", "TIMEOUT",
	"INSUFFICIENT_BUFFER", "INVALID_OPERATION", "NOT_IMPLEMENTED", "INTERNAL_FAILURE",
	"DATA_ALIGNMENT_FAILURE", "CHUNK_TOO_LARGE", "INVALID_LOGGER_LEVEL", "CLOSE_FAILURE",
	"OPEN_FILE_FAILURE", "FILE_OPERATION_FAILURE", "UNSUPPORTED_CONTROL_PROTOCOL_VERSION",
	"UNSUPPORTED_FW_VERSION", "INVALID_CONTROL_RESPONSE", "FW_CONTROL_FAILURE", "ETH_FAILURE",
	"ETH_INTERFACE_NOT_FOUND", "ETH_RECV_FAILURE", "ETH_SEND_FAILURE", "INVALID_FIRMWARE",
	"INVALID_CONTEXT_COUNT", "INVALID_FRAME", "INVALID_HEF", "PCIE_NOT_SUPPORTED_ON_PLATFORM",
	"INTERRUPTED_BY_SIGNAL", "START_VDMA_CHANNEL_FAIL", "SYNC_VDMA_BUFFER_FAIL",
	"STOP_VDMA_CHANNEL_FAIL", "CLOSE_VDMA_CHANNEL_FAIL", "ATR_TABLES_CONF_VALIDATION_FAIL",
	"EVENT_CREATE_FAIL", "READ_EVENT_FAIL", "DRIVER_OPERATION_FAILED", "INVALID_FIRMWARE_MAGIC",
	"INVALID_FIRMWARE_CODE_SIZE", "INVALID_KEY_CERTIFICATE_SIZE", "INVALID_CONTENT_CERTIFICATE_SIZE",
	"MISMATCHING_FIRMWARE_BUFFER_SIZES", "INVALID_FIRMWARE_CPU_ID", "CONTROL_RESPONSE_MD5_MISMATCH",
	"GET_CONTROL_RESPONSE_FAIL", "GET_D2H_EVENT_MESSAGE_FAIL", "MUTEX_INIT_FAIL", "OUT_OF_DESCRIPTORS",
	"UNSUPPORTED_OPCODE", "USER_MODE_RATE_LIMITER_NOT_SUPPORTED", "RATE_LIMIT_MAXIMUM_BANDWIDTH_EXCEEDED",
	"ANSI_TO_UTF16_CONVERSION_FAILED", "UTF16_TO_ANSI_CONVERSION_FAILED", "UNEXPECTED_INTERFACE_INFO_FAILURE",
	"UNEXPECTED_ARP_TABLE_FAILURE", "MAC_ADDRESS_NOT_FOUND", "NO_IPV4_INTERFACES_FOUND",
	"SHUTDOWN_EVENT_SIGNALED", "THREAD_ALREADY_ACTIVATED", "THREAD_NOT_ACTIVATED", "THREAD_NOT_JOINABLE",
	"NOT_FOUND", "COMMUNICATION_CLOSED", "STREAM_ABORT", "DRIVER_NOT_INSTALLED", "NOT_AVAILABLE",
	"TRAFFIC_CONTROL_FAILURE", "INVALID_SECOND_STAGE", "INVALID_PIPELINE", "NETWORK_GROUP_NOT_ACTIVATED",
	"VSTREAM_PIPELINE_NOT_ACTIVATED", "OUT_OF_FW_MEMORY", "STREAM_NOT_ACTIVATED", "DEVICE_IN_USE",
	"OUT_OF_PHYSICAL_DEVICES", "INVALID_DEVICE_ARCHITECTURE", "INVALID_DRIVER_VERSION", "RPC_FAILED",
	"INVALID_SERVICE_VERSION", "NOT_SUPPORTED", "NMS_BURST_INVALID_DATA", "OUT_OF_HOST_CMA_MEMORY",
	"QUEUE_IS_FULL", "DMA_MAPPING_ALREADY_EXISTS", "CANT_MEET_BUFFER_REQUIREMENTS",
	"DRIVER_INVALID_RESPONSE", "DRIVER_INVALID_IOCTL", "DRIVER_TIMEOUT", "DRIVER_INTERRUPTED",
	"CONNECTION_REFUSED", "DRIVER_WAIT_CANCELED", "HEF_FILE_CORRUPTED", "HEF_NOT_SUPPORTED",
	"HEF_NOT_COMPATIBLE_WITH_DEVICE", "INVALID_HEF_USE", "OPERATION_ABORTED", "DEVICE_NOT_CONNECTED",
	"DEVICE_TEMPORARILY_UNAVAILABLE",
}
