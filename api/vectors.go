package api

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"hailoclip/api/rawjson"
)

// vectors is how an answer gives embeddings.
type vectors uint8

const (
	vectorsJSON   vectors = iota // an array of numbers
	vectorsBase64                // in JSON, base64 of float32, little-endian
	vectorsF16                   // likewise of float16 (IEEE 754 binary16)
	vectorsInt8                  // likewise of int8, with the scale that makes numbers of them
	vectorsBinary                // the body is float32, little-endian, and nothing else
)

// encodings are the values of the query's 'encoding', by number of the vectors from vectorsBase64 on.
var encodings = [...]string{vectorsBase64: "base64", vectorsF16: "f16", vectorsInt8: "int8"}

// vectorsOf finds out how the client wants its embeddings: as the query's 'encoding' has it, else as floats by themselves
// where Accept prefers application/octet-stream, else as JSON, which every client gets that asks for something else.
func vectorsOf(ctx *fasthttp.RequestCtx) (vectors, error) {
	if name := ctx.QueryArgs().Peek("encoding"); len(name) > 0 {
		for v, encoding := range encodings {
			if v > 0 && string(name) == encoding {
				return vectors(v), nil
			}
		}
		return 0, fail(errInvalidRequest, "Unknown 'encoding' %.20q: it must be base64, f16 or int8", name)
	}
	if prefersBytes(ctx.Request.Header.Peek(fasthttp.HeaderAccept)) {
		return vectorsBinary, nil
	}
	return vectorsJSON, nil
}

// prefersBytes says that of the names application/octet-stream and application/json the first one has the higher quality
// in accept, or, at equal quality, comes first (RFC 9110, 12.5.1). Ranges such as */* are no wish for bytes.
func prefersBytes(accept []byte) (prefers bool) {
	best := 0.0
	for len(accept) > 0 {
		var one []byte
		one, accept, _ = bytes.Cut(accept, []byte(","))
		media, params, _ := bytes.Cut(one, []byte(";"))
		media = bytes.TrimSpace(media)
		isBytes := foldEqual(media, "application/octet-stream")
		if !isBytes && !foldEqual(media, "application/json") {
			continue
		}
		quality := 1.0
		for len(params) > 0 {
			key, value, rest, ok := cutParam(params)
			if !ok {
				break
			}
			if q, err := strconv.ParseFloat(string(value[:min(len(value), 8)]), 64); err == nil && foldEqual(key, "q") {
				quality = q
			}
			params = rest
		}
		if quality > best {
			best, prefers = quality, isBytes
		}
	}
	return prefers
}

// appendVector appends the fields of a JSON object that give an embedding: "embedding", and unless that is an array
// "encoding", with "scale" where the numbers are the bytes times that.
func appendVector(b []byte, embedding []float32, as vectors) []byte {
	if as == vectorsJSON {
		return rawjson.AppendNumbers(append(b, `"embedding":`...), embedding)
	}
	scale := 0.0
	var space [4 << 10]byte
	raw := space[:0]
	switch as {
	case vectorsF16:
		for _, v := range embedding {
			raw = binary.LittleEndian.AppendUint16(raw, float16(v))
		}
	case vectorsInt8:
		for _, v := range embedding {
			scale = max(scale, math.Abs(float64(v))/127)
		}
		for _, v := range embedding {
			raw = append(raw, byte(int8(math.RoundToEven(float64(v)/max(scale, math.SmallestNonzeroFloat64)))))
		}
	default:
		raw = appendFloats(raw, embedding)
	}
	b = append(b, `"embedding":"`...)
	b = base64.StdEncoding.AppendEncode(b, raw)
	b = append(b, `","encoding":"`...)
	b = append(append(b, encodings[as]...), '"')
	if as == vectorsInt8 {
		b = append(b, `,"scale":`...)
		b = rawjson.AppendFloat(b, scale)
	}
	return b
}

// appendFloats appends the numbers as float32, little-endian.
func appendFloats(b []byte, numbers []float32) []byte {
	b, _ = binary.Append(b, binary.LittleEndian, numbers)
	return b
}

// float16 is the nearest number of IEEE 754 binary16, of two equally near ones the even one; infinite beyond 65504.
func float16(f float32) uint16 {
	u := math.Float32bits(f)
	sign, exponent, fraction := uint16(u>>16)&0x8000, int(u>>23&0xff)-127, u&(1<<23-1)
	switch {
	case exponent == 128 && fraction != 0: // not a number
		return sign | 0x7e00
	case exponent > 15:
		return sign | 0x7c00
	case exponent >= -14:
		// Rounding may carry into the exponent, which is right, up to infinity.
		return sign + uint16(roundShift(uint32(exponent+15)<<23|fraction, 13))
	case exponent >= -25:
		return sign | uint16(roundShift(1<<23|fraction, uint(-1-exponent)))
	}
	return sign
}

// roundShift is v / 2^n, rounded to the nearest integer, of two equally near ones to the even one.
func roundShift(v uint32, n uint) uint32 {
	half := uint32(1) << (n - 1)
	return (v + half - 1 + v>>n&1) >> n
}

// embedding writes the answer of a request whose embedding the engine has made.
func embedding(r *request) error {
	if r.vectors != vectorsBinary {
		return result(appendEmbedding)(r)
	}
	start := time.Now()
	r.ctx.Response.Header.SetContentType("application/octet-stream")
	r.ctx.Response.SwapBody(appendFloats(r.ctx.Response.SwapBody(nil)[:0], r.result.Embedding))
	r.serverTiming(time.Since(start))
	return nil
}
