package fleet

import "context"

// shares says that the node has prompt sets and vectors of texts in common with others.
func (n *Node) shares() bool { return n.Config.Share && n.parts.Engine != nil }

// share has the engine ask the fleet. From then on prompt sets are changed only while the broker is there.
func (n *Node) share() {
	if !n.shares() {
		return
	}
	n.texts = newTextStore(n.Conn)
	n.sets = &setStore{conn: n.Conn}
	n.parts.Engine.PromptSets().Share(n.sets)
	n.parts.Engine.ShareTexts(n.texts)
}

// reportShare adds what is shared to a status.
func (n *Node) reportShare(_ context.Context, s *Status) error {
	if n.texts != nil {
		t, p := n.texts, n.sets
		given, heard := p.given.Load(), p.heard.Load() // in this order: the own ones are heard, too
		s.Share = &ShareStatus{
			SetsTaken: heard - min(heard, given), SetsGiven: given, Conflicts: p.conflicts.Load(), TextHits: t.hits.Load(),
			TextMisses: t.misses.Load(), TextGiven: t.given.Load(),
		}
	}
	return nil
}
