package api

import (
	"context"

	"hailoclip/api/fleet"
)

// fleet serves /v1/fleet: what this service knows of its fleet, or that it is in none.
func (s *Server) fleet(r *request) error { return r.answerPlain(s.fleetStatus()) }

// fleetStatus is for what is asked without a time limit of its own: the status has one.
func (s *Server) fleetStatus() *fleet.Status {
	if s.svc.Fleet == nil {
		return &fleet.Status{}
	}
	return s.svc.Fleet(context.Background())
}
