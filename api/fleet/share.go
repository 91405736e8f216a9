package fleet

// shares says that the node has prompt sets and vectors of texts in common with others.
func (n *Node) shares() bool { return n.Config.Share && n.parts.Engine != nil }

// share has the engine ask the fleet. From then on prompt sets are changed only while the broker is there.
func (n *Node) share() {
	if !n.shares() {
		return
	}
	n.texts = newTextStore(n.Conn)
	n.parts.Engine.PromptSets().Share(&setStore{n.Conn})
	n.parts.Engine.ShareTexts(n.texts)
}
