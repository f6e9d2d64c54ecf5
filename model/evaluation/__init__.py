"""How good captions are.

Tokens     ptb_tokenizer, by ptb_rules, of ptb_characters: those that published scores are made of
Metrics    bleu, rouge, cider over the n-grams of grams; caption_scores: all of them; jar_metrics: METEOR, SPICE
Intervals  bootstrap
"""
