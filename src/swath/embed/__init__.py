"""What a trained model makes of samples and scenes before its head, for use elsewhere.

Embeddings of a store's samples (:mod:`swath.embed.samples`) and of a scene
(:mod:`swath.embed.scene`); places like a given one (:mod:`swath.embed.similar`), and unlike all
others (:mod:`swath.embed.anomaly`); what they are worth without further training
(:mod:`swath.embed.probe`).
"""
