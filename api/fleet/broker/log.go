package broker

import (
	"fmt"
	"log/slog"
	"strings"
)

// logger has the server write to our log.
type logger struct{ *slog.Logger }

func (l logger) Noticef(format string, v ...any) { l.Info(text(format, v)) }
func (l logger) Warnf(format string, v ...any)   { l.Warn(text(format, v)) }
func (l logger) Errorf(format string, v ...any)  { l.Error(text(format, v)) }
func (l logger) Fatalf(format string, v ...any)  { l.Error(text(format, v)) }
func (l logger) Debugf(format string, v ...any)  { l.Debug(text(format, v)) }
func (l logger) Tracef(string, ...any)           {}

func text(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
