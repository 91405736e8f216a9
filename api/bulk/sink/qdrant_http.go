package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Limits of what is read of an answer, in bytes: of a page of Each, and of what went wrong.
const (
	maxAnswer = 64 << 20
	maxReason = 4 << 10
)

var (
	errNotFound = errors.New("not found")
	errConflict = errors.New("conflict")
)

// ask sends a request about the collection, several times if need be, and reads the result of the answer.
func (s *qdrantSink) ask(ctx context.Context, method, path string, body, result any) error {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	return retry(ctx, s.tries, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, method, s.base.String()+path, bytes.NewReader(content))
		if err != nil {
			return err
		}
		if body != nil {
			request.Header.Set("Content-Type", "application/json")
		}
		if s.key != "" {
			request.Header.Set("api-key", s.key)
		}
		response, err := s.client.Do(request)
		if err != nil {
			return temporary{error: err}
		}
		defer response.Body.Close()
		return s.answer(response, result)
	})
}

// answer reads an answer. Its errors have what Qdrant says is wrong.
func (s *qdrantSink) answer(response *http.Response, result any) error {
	limit := int64(maxAnswer)
	if response.StatusCode != http.StatusOK {
		limit = maxReason
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if response.StatusCode == http.StatusOK {
		if err != nil {
			return temporary{error: err}
		} else if int64(len(data)) > limit {
			return fmt.Errorf("it answers with more than %d bytes", limit)
		}
		answer := struct {
			Status any `json:"status"`
			Result any `json:"result"`
		}{Result: result}
		if err := json.Unmarshal(data, &answer); err != nil || answer.Status != "ok" {
			return errors.New("what answers is not Qdrant: its answer has no status ok")
		}
		return nil
	}
	var reason struct {
		Status struct {
			Error string `json:"error"`
		} `json:"status"`
	}
	text := strings.TrimSpace(string(data[:min(len(data), 300)]))
	if json.Unmarshal(data, &reason) == nil && reason.Status.Error != "" {
		text = reason.Status.Error
	}
	if s.key != "" {
		text = strings.ReplaceAll(text, s.key, "***")
	}
	err = fmt.Errorf("it answers %d: %.500q", response.StatusCode, text)
	switch code := response.StatusCode; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%w: %w", errNotFound, err)
	case code == http.StatusConflict:
		return fmt.Errorf("%w: %w", errConflict, err)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("%w (the API key is in the environment variable %s)", err, QdrantKey)
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return temporary{err, time.Duration(min(max(seconds, 0), 3600)) * time.Second}
	}
	return err
}
