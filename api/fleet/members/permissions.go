package members

import "strings"

// Stores are the streams behind all that nodes keep at the broker.
var Stores = []string{
	"CLIP_BULK", "CLIP_RES", "CLIP_DEAD", "KV_clip_jobs", "KV_clip_sets", "KV_clip_text", "KV_clip_cams", "OBJ_clip_in", "OBJ_clip_set", "OBJ_clip_models",
}

// Permissions are the subjects that a member may publish to and subscribe to. Nodes may make the stores and use them, but neither delete
// nor copy them whole; only object stores can be purged, since that is how an object is removed, and only the large streams be changed, for
// their sizes, which NATS does not tell from other settings. A node tells its own load and answers its own requests alone, and reads its own
// answers alone. A leaf speaks for its nodes, so that it may do what any node may. domain is the JetStream domain of the broker.
func (n Node) Permissions(domain string) (publish, subscribe []string) {
	own := n.Name
	if n.Leaf {
		own = "*"
	}
	publish = []string{
		"clip.v1.load." + own,
		"clip.v1.enc.>", // requests
		"clip.v1.bulk.>", "clip.v1.res.>", "clip.v1.dead.>",
		"$JS.FC.>",
	}
	subscribe = []string{
		"clip.v1.load.*",
		"clip.v1.enc." + own, "clip.v1.enc." + own + ".>",
		Inbox(own) + ".>", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
	}
	apis := []string{"$JS.API."}
	if domain != "" {
		apis = append(apis, "$JS."+domain+".API.")
	}
	for _, api := range apis {
		publish = append(publish, api+"STREAM.NAMES") // asked by watches and for objects
		for _, s := range Stores {
			publish = append(publish, onStream(api, s)...)
		}
	}
	for _, s := range []string{"CLIP_BULK", "CLIP_RES"} { // without and with the domain
		publish = append(publish, "$JS.ACK."+s+".>", "$JS.ACK.*.*."+s+".>")
	}
	for _, s := range Stores {
		if bucket, ok := strings.CutPrefix(s, "KV_"); ok {
			publish = append(publish, "$KV."+bucket+".>", apis[len(apis)-1]+"$KV."+bucket+".>") // so into another domain
		}
		if bucket, ok := strings.CutPrefix(s, "OBJ_"); ok {
			publish = append(publish, "$O."+bucket+".>")
		}
	}
	if n.Leaf {
		publish = append(publish, Inbox("*")+".>") // answers of its nodes
		subscribe = append(subscribe, publish...)  // what is stored passes through it under its own subject
	}
	return publish, subscribe
}

// onStream are the parts of JetStream's interface that nodes use of a stream.
func onStream(api, name string) (subjects []string) {
	verbs := []string{"INFO", "CREATE", "MSG.GET"}
	images, objects := name == "CLIP_BULK", strings.HasPrefix(name, "OBJ_")
	if images { // those that no node could encode
		verbs = append(verbs, "MSG.DELETE")
	}
	if objects {
		verbs = append(verbs, "PURGE")
	}
	if images || name == "CLIP_RES" || name == "OBJ_clip_in" { // made as large as the broker has room, then smaller
		verbs = append(verbs, "UPDATE")
	}
	for _, verb := range verbs {
		subjects = append(subjects, api+"STREAM."+verb+"."+name)
	}
	consumer := []string{"CREATE", "INFO", "MSG.NEXT"}
	if !images { // there the others take images by the same one
		consumer = append(consumer, "DELETE")
	}
	for _, verb := range consumer {
		subjects = append(subjects, api+"CONSUMER."+verb+"."+name+".>")
	}
	return append(subjects, api+"CONSUMER.CREATE."+name, api+"CONSUMER.LIST."+name, api+"DIRECT.GET."+name, api+"DIRECT.GET."+name+".>")
}

// Inbox is the prefix of the subjects on which a node gets answers.
func Inbox(node string) string { return "_INBOX." + node }
